import dataclasses
import math
import re

import pytest

from resnet_cifar100.config import Config
from resnet_cifar100.engine.advice import advise, find_plateau, smoothed
from resnet_cifar100.engine.log_page import render_markdown
from resnet_cifar100.engine.record import load_record
from resnet_cifar100.markdown import duration
from tests.conftest import REPOSITORY
from tests.records import record_of


def documented_run():
    """The document's figures: 99.65% train, 74.70% final, 74.86% best, flat after epoch 90.

    The document has no curve. Between its figures this one rises steadily to epoch 90, and swings
    by two points either way while the learning rate is above half of its highest.
    """
    lrs = [0.05 * (1 + math.cos(math.pi * epoch / 100)) for epoch in range(100)]
    held = [0.747 - 0.0034 * max(0, 89 - epoch) for epoch in range(100)]
    held = [top1 + 0.02 * (-1) ** e * (lrs[e] > 0.05) for e, top1 in enumerate(held)]
    held[92] = 0.7486
    train = [0.9965 * min(1, (epoch + 10) / 95) for epoch in range(100)]
    return record_of(train, held, lrs=lrs, epochs=100, dropout=0.1)


def test_the_users_figures_give_the_recommendations_of_the_document():
    stop, augment, regularise, lower = advise(documented_run())
    assert stop.title == "Early stopping"
    assert 80 <= int(re.match(r"--epochs (\d+)", stop.flags)[1]) <= 90
    assert regularise.title == "Stronger regularisation"
    assert regularise.flags == "--weight-decay 0.001"
    for evidence in (augment.evidence, regularise.evidence):
        assert "99.65%" in evidence
        assert "74.70%" in evidence
    assert augment.title == "Enhanced augmentation"
    assert all(name in augment.evidence for name in ("Cutout", "Mixup", "CutMix"))
    assert (lower.title, lower.flags) == ("Lower learning rate", "--lr 0.05")


def test_stopping_early_tells_what_it_would_have_cost():
    record = documented_run()
    plateau = find_plateau(record)
    held = [row["test/top1"] for row in record.history.epochs]
    assert plateau.cost == pytest.approx(0.747 - held[plateau.epoch])
    assert f"{100 * plateau.cost:.2f} points" in advise(record)[0].evidence


def test_a_curve_on_test_images_does_not_decide_when_to_stop():
    train, held = [0.5] * 20, [0.45] * 20
    (on_test,) = (one for one in advise(record_of(train, held)) if one.title == "Early stopping")
    (on_val,) = (
        one for one in advise(record_of(train, held, split="val")) if one.title == "Early stopping"
    )
    assert on_test.flags == on_val.flags == "--epochs 1"
    assert "--val-size 5000" in render_markdown(record_of(train, held))
    assert (
        "--val-size 5000"
        not in render_markdown(record_of(train, held, split="val")).split("## Quick reference")[0]
    )


def titles(*args, **settings):
    return {advice.title for advice in advise(record_of(*args, **settings))}


RISING = [0.05 * epoch for epoch in range(1, 13)]  # to 60%


@pytest.mark.parametrize(
    ("train", "held", "expected"),
    [
        (RISING, RISING, {"Longer training", "Larger network", "Higher learning rate"}),
        (
            [t + 0.11 for t in RISING],
            RISING,
            {"Longer training", "Stronger regularisation", "Enhanced augmentation"},
        ),
        ([t + 0.09 for t in RISING], RISING, {"Longer training"}),
        ([0.2, 0.3], [0.2, 0.3], {"Longer training"}),
        ([0.2, 0.3], [0.2, 0.305], {"Longer training"}),
        ([0.3, 0.3], [0.295, 0.3], {"Longer training"}),
        ([0.3], [0.3], {"Longer training"}),
        ([0.97], [0.95], set()),
        ([], [], set()),
        ([0.97] * 2, [0.88] * 2, set()),
        ([0.97] * 2, [0.86] * 2, {"Stronger regularisation", "Enhanced augmentation"}),
        ([0.94] * 2, [0.83] * 2, {"Stronger regularisation", "Enhanced augmentation"}),
    ],
)
def test_advice_needs_its_evidence(train, held, expected):
    assert titles(train, held) == expected


@pytest.mark.parametrize(("dips", "expected"), [(3, True), (2, False)])
def test_a_lower_learning_rate_needs_several_falls_of_the_curve(dips, expected):
    held = list(RISING)
    for index in range(dips):
        held[2 * index + 2] = held[2 * index + 1] - 0.025
    assert ("Lower learning rate" in titles(RISING, held)) is expected


def test_falls_at_a_low_learning_rate_do_not_count():
    held = list(RISING)
    for index in (6, 8, 10):
        held[index] = held[index - 1] - 0.025
    low = [0.1] * 5 + [0.04] * 7
    assert "Lower learning rate" in titles(RISING, held)
    assert "Lower learning rate" not in titles(RISING, held, lrs=low)


def test_both_step_sizes_of_muon_are_lowered():
    held = [0.3 + 0.03 * (-1) ** epoch for epoch in range(12)]
    advice = advise(record_of([0.5] * 12, held, optimizer="muon", lr=0.4, muon_lr=0.1))
    (lower,) = (one for one in advice if one.title == "Lower learning rate")
    assert lower.flags == "--lr 0.2 --muon-lr 0.05"


def test_what_is_set_already_is_not_advised():
    advice = advise(record_of([0.97] * 2, [0.5] * 2))
    assert advice[1].flags == "--weight-decay 0.001"  # twice what it is
    assert "Enhanced augmentation" not in titles([0.97] * 2, [0.5] * 2, augment=("cutout",))
    assert "Larger network" not in titles(RISING, RISING, width=8.0)


def test_muon_is_not_told_to_penalise_filters_whose_norm_it_sets():
    assert "Stronger regularisation" in titles([0.97] * 2, [0.5] * 2)
    assert "Stronger regularisation" not in titles([0.97] * 2, [0.5] * 2, optimizer="muon")


def test_a_run_that_has_hardly_learned_is_told_to_go_on():
    flat = advise(record_of([0.03, 0.04, 0.045], [0.03, 0.033, 0.033]))
    assert [(one.title, one.flags) for one in flat] == [("Longer training", "--epochs 10")]
    assert flat[0].evidence == "After 3 epochs train top-1 is 4.5% and test top-1 3.3%."


def test_the_time_left_is_never_below_nothing():
    record = record_of([0.5] * 3, [0.5] * 3, status="running", epochs=4)
    record.history.train_seconds = 250.0
    assert "about 0:00:00 of training left" in render_markdown(record)


def test_epochs_of_larger_images_are_still_to_take_longer():
    sizes = {"early_sizes": (16,), "early_shares": (0.5,), "image_size": 32}
    record = record_of([0.5] * 2, [0.5] * 2, status="running", epochs=4, **sizes)
    measured = record.history.epochs[-1]["train_seconds"]
    record.history.train_seconds = measured
    left = duration(4 * measured)  # of four times the pixels
    assert f"about {left} of training left" in render_markdown(record)


def test_a_run_that_stopped_early_is_not_told_to_be_shorter():
    advice = advise(record_of(RISING, RISING, epochs=200))
    (longer,) = (one for one in advice if one.title == "Longer training")
    assert longer.flags == "--epochs 201"


def test_a_curve_that_falls_after_its_highest_is_to_stop_there():
    held = [*RISING[:8], 0.30, 0.30, 0.29, 0.31]
    record = record_of([0.5] * 12, held)
    plateau = find_plateau(record)
    assert plateau.epoch in (6, 7)
    (stop,) = (one for one in advise(record) if one.title == "Early stopping")
    assert "would have gained" in stop.evidence
    assert "Longer training" not in titles([0.5] * 12, [*held[:-1], 0.35])


PUBLISHED = sorted(path.parent for path in (REPOSITORY / "records").glob("*/run.json"))


@pytest.mark.parametrize(
    "record",
    [documented_run(), *map(load_record, PUBLISHED)],
    ids=["document", *(folder.name for folder in PUBLISHED)],
)
def test_each_advice_names_a_figure_and_flags_that_exist(record):
    fields = {field.name for field in dataclasses.fields(Config)}
    for advice in advise(record):
        assert re.search(r"\d", advice.evidence)
        flags = re.findall(r"--([\w-]+)", advice.flags)
        assert flags
        assert {flag.replace("-", "_") for flag in flags} <= fields


def test_a_run_that_goes_on_is_not_judged():
    page = render_markdown(record_of([0.97] * 2, [0.5] * 2, status="running"))
    assert "not judged" in page
    assert "Stronger regularisation" not in page


def test_smoothing_keeps_level_and_length():
    assert smoothed([0.5] * 100) == pytest.approx([0.5] * 100)
    assert smoothed([1.0, 2.0, 6.0]) == [1.5, 3.0, 4.0]
    assert smoothed([0.0] * 50 + [1.0] * 50)[49] == pytest.approx(3 / 7)
