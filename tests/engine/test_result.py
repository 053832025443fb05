"""What a run is found to have learned, and the curve of how."""

import dataclasses
import shutil

import pytest
from rich.console import Console

from resnet_cifar100.analysis.compare import group_rows
from resnet_cifar100.analysis.groups import Group, Run
from resnet_cifar100.bundle import load_bundle
from resnet_cifar100.data.loader import Split
from resnet_cifar100.engine import trainer
from resnet_cifar100.engine.evaluate import evaluate
from resnet_cifar100.engine.record import load_record
from resnet_cifar100.engine.runlog import RunLog
from resnet_cifar100.engine.step import train_step
from resnet_cifar100.engine.trainer import fit
from tests.records import record_of
from tests.states import begun


def test_the_kept_weights_are_measured_on_training_images_as_they_are(
    tiny_config, tiny_dataset, tmp_path, console, monkeypatch
):
    monkeypatch.setattr(trainer, "TRAIN_EVAL_IMAGES", 150)
    config = dataclasses.replace(tiny_config, augment=("cutmix",), epochs=1)
    record = fit(config, tiny_dataset, tmp_path / "run", console)
    train, test = tiny_dataset.train, tiny_dataset.test
    kept = load_bundle(config.checkpoint_path)
    own = evaluate(kept.logits, Split(train.images[:150], train.labels[:150]))
    measured = {key: record.result[f"train_eval/{key}"] for key in ("loss", "top1", "top5")}
    assert measured == dataclasses.asdict(own)
    assert kept.provenance["metrics"]["train_eval/top1"] == own.top1
    gap = own.top1 - evaluate(kept.logits, test).top1
    assert load_record(tmp_path / "run").train_eval_gap == gap
    page = config.log_file.read_text()
    assert f"| Train top-1 of the same weights, images as they are | {own.top1:.2%} |" in page
    assert f"{100 * gap:.1f} points more than of test images" in page


def test_images_held_out_are_not_taken_for_training_images(
    tiny_config, tiny_dataset, tmp_path, console, monkeypatch
):
    seen = []
    measure = trainer._evaluate_in_main_process

    def note(predict, split, stop):
        seen.append(len(split.labels))
        return measure(predict, split, stop)

    monkeypatch.setattr(trainer, "_evaluate_in_main_process", note)
    config = dataclasses.replace(tiny_config, epochs=1, val_size=100)
    fit(config, tiny_dataset, tmp_path / "run", console)
    assert seen == [100, 200, 300]  # the epoch; of the result, test and train


def test_where_no_step_is_waited_for_the_curve_has_the_same_points(
    tiny_config, tiny_dataset, tmp_path, straight
):
    """As on a GPU, where losses are read at the end of an epoch alone."""
    state, loader = begun(tiny_config, tiny_dataset)
    state.model.train()
    log = RunLog(state, tiny_dataset.title, tmp_path / "run", Console(quiet=True))
    for images, targets in loader.batches(0):
        train_step(state, images, targets)
    state.history.train_seconds = 16.0
    log.add_elapsed = lambda: None  # no time has gone by since
    log.points()
    expected = straight(tiny_config).record.history.steps[:3]
    for point, other in zip(state.history.steps, expected, strict=True):
        assert point["train/loss"] == pytest.approx(other["train/loss"], rel=1e-6)
        assert (point["step"], point["lr"]) == (other["step"], other["lr"])
    seconds = [point["train_seconds"] for point in state.history.steps]
    assert seconds == pytest.approx([6.0, 12.0, 16.0])


def test_a_finished_run_is_not_measured_again(
    tiny_config, tiny_dataset, tmp_path, console, straight, monkeypatch
):
    first = straight(tiny_config)
    run_dir = tmp_path / "run"
    shutil.copytree(first.folder / "run", run_dir)
    before = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
    monkeypatch.setattr(trainer, "_fit", None)
    (run_dir / ".run.json.1.tmp").touch()  # of a kill between run.json and the log
    with console.capture() as said:
        again = fit(tiny_config, tiny_dataset, run_dir, console)
    assert "is finished: nothing is left to train" in said.get().replace("\n", " ")
    assert again.result == first.record.result
    assert again.config == tiny_config
    assert {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()} == before
    for asked, own in (("checkpoint_path", "best_model.pth"), ("log_file", "logs.md")):
        assert getattr(tiny_config, asked).read_bytes() == (first.folder / own).read_bytes()


def test_the_gap_of_the_kept_weights_is_shown_where_it_was_measured(tmp_path):
    plain, known = (record_of([0.9], [0.7], seed=seed) for seed in (0, 1))
    known.result = {"test/top1": 0.7, "train_eval/top1": 0.953}
    for record, shown in ((plain, ""), (known, "25.3")):
        group = Group("A", "a", (Run(tmp_path, record),))
        assert group_rows([group])[0]["Train/test gap"] == shown
