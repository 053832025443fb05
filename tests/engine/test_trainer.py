import csv
import dataclasses
import json

import pytest
import torch

from resnet_cifar100.bundle import load_bundle
from resnet_cifar100.data.cifar100 import training_splits
from resnet_cifar100.engine import step as step_module
from resnet_cifar100.engine import trainer
from resnet_cifar100.engine.checkpoint import load_newest_state
from resnet_cifar100.engine.evaluate import evaluate
from resnet_cifar100.engine.log_page import render_markdown
from resnet_cifar100.engine.record import load_record
from resnet_cifar100.engine.step import train_step, warm_up
from resnet_cifar100.engine.trainer import fit
from resnet_cifar100.errors import ConfigError, NonFiniteError
from resnet_cifar100.models.speednet import SpeedNet
from tests.states import begun


def test_a_run_leaves_its_record_in_every_form(tiny_config, straight):
    folder, record, _ = straight(tiny_config)
    run_dir = folder / "run"
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [0, 1, 2]
    with (run_dir / "metrics.csv").open() as file:
        assert [float(row["test/top1"]) for row in csv.DictReader(file)] == [
            row["test/top1"] for row in rows
        ]
    steps = [
        json.loads(line)["step"] for line in (run_dir / "steps.jsonl").read_text().splitlines()
    ]
    assert steps == [3, 6, 8, 9, 12, 15, 16, 18, 21, 24]
    assert json.loads((run_dir / "env.json").read_text())[0]["torch"] == str(torch.__version__)
    assert load_record(run_dir) == record
    page = (folder / "logs.md").read_text()
    assert page == render_markdown(record)
    assert "finished, 3 of 3 epochs" in page
    assert page.count("SYNTHETIC") >= 2


def test_the_steps_of_an_epoch_average_to_its_loss(tiny_config, straight):
    history = straight(tiny_config).record.history
    sizes = [3, 3, 2]  # steps between the points of the first epoch
    points = [row["train/loss"] for row in history.steps[:3]]
    mean = sum(size * loss for size, loss in zip(sizes, points, strict=True)) / 8
    assert history.epochs[0]["train/loss"] == pytest.approx(mean)


def measure(monkeypatch, *top1):
    """Let the epochs of a run measure these; what comes after is measured truly."""
    curve, evaluated = iter(top1), trainer._evaluate_in_main_process

    def scripted(*given):
        found = evaluated(*given)
        return dataclasses.replace(found, top1=next(curve, found.top1))

    monkeypatch.setattr(trainer, "_evaluate_in_main_process", scripted)


def test_of_epochs_that_validation_measured_the_best_is_kept(
    tiny_config, tiny_dataset, tmp_path, console, monkeypatch
):
    measure(monkeypatch, 0.1, 0.3, 0.2, 0.4, 0.1, 0.1)
    config = dataclasses.replace(tiny_config, val_size=100, epochs=6)
    assert fit(config, tiny_dataset, tmp_path / "run", console).result["epoch"] == 3


def test_validation_chooses_the_best_weights_and_test_only_measures(
    tiny_config, tiny_dataset, tmp_path, console
):
    config = dataclasses.replace(tiny_config, val_size=100, epochs=6, lr=0.2)
    record = fit(config, tiny_dataset, tmp_path / "run", console)
    rows = record.history.epochs
    assert not any(key.startswith("test/") for row in rows for key in row)
    best = max(range(6), key=lambda epoch: rows[epoch]["val/top1"])
    assert record.result["epoch"] == best
    assert record.result["chosen_by"] == "best val top-1"
    bundle = load_bundle(config.checkpoint_path)
    _, val = training_splits(tiny_dataset, config)
    assert evaluate(bundle.logits, val).top1 == rows[best]["val/top1"]
    assert evaluate(bundle.logits, tiny_dataset.test).top1 == record.result["test/top1"]


def test_without_validation_the_last_epoch_counts_whatever_the_test_curve_did(
    tiny_config, tiny_dataset, tmp_path, console, monkeypatch
):
    measure(monkeypatch, 0.9, 0.1, 0.2)
    record = fit(tiny_config, tiny_dataset, tmp_path / "run", console)
    assert record.result["epoch"] == 2
    assert record.result["chosen_by"] == "last epoch"


def test_early_stopping_ends_a_run_that_no_longer_improves(
    tiny_config, tiny_dataset, tmp_path, console
):
    config = dataclasses.replace(
        tiny_config, val_size=100, epochs=50, lr=1e-8, early_stopping_patience=2
    )
    record = fit(config, tiny_dataset, tmp_path / "run", console)
    tops = [row["val/top1"] for row in record.history.epochs]
    assert len(tops) < 50
    assert len(tops) - 1 - tops.index(max(tops)) == 2
    assert record.status == "finished"


@pytest.mark.parametrize(("seconds", "saved"), [(1000, [8, 40]), (0, [8, 16, 24, 32, 40])])
def test_short_epochs_are_not_each_saved_but_the_first_and_the_last_are(
    seconds, saved, tiny_config, tiny_dataset, tmp_path, console, monkeypatch
):
    config = dataclasses.replace(tiny_config, epochs=5, keep_checkpoints=5)
    monkeypatch.setattr(trainer, "SECONDS_BETWEEN_SAVES", seconds)
    record = fit(config, tiny_dataset, tmp_path / "run", console)
    states = (tmp_path / "run" / "state").glob("step_*")
    assert sorted(int(folder.name.removeprefix("step_")) for folder in states) == saved
    bundle = load_bundle(config.checkpoint_path)
    assert bundle.provenance["metrics"]["epoch"] == record.result["epoch"] == 4
    last = record.history.epochs[-1]
    assert evaluate(bundle.logits, tiny_dataset.test).top1 == last["test/top1"]


def test_the_best_weights_come_with_their_state(
    tiny_config, tiny_dataset, tmp_path, console, monkeypatch
):
    """Else a run that is killed goes on from before its best epoch, which may not come again."""
    config = dataclasses.replace(tiny_config, val_size=100, epochs=6, keep_checkpoints=6)
    monkeypatch.setattr(trainer, "SECONDS_BETWEEN_SAVES", 1000)
    measure(monkeypatch, 0.1, 0.3, 0.2, 0.4, 0.1, 0.1)
    record = fit(config, tiny_dataset, tmp_path / "run", console)
    states = (tmp_path / "run" / "state").glob("step_*")
    steps = {int(folder.name.removeprefix("step_")) for folder in states}
    assert steps == {record.steps_per_epoch * (epoch + 1) for epoch in (0, 1, 3, 5)}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("step", [0, 4, 13, 23])
def test_a_loss_that_is_not_finite_stops_the_run_at_its_step_and_keeps_the_last_state(
    step, value, tiny_config, tiny_dataset, tmp_path, console, monkeypatch
):
    def poisoned_step(state, images, labels):
        if state.step == step:
            with torch.no_grad():
                state.model.head.weight[0] = value
        train_step(state, images, labels)

    run_dir = tmp_path / "run"
    config = dataclasses.replace(tiny_config, ema_decay=0.0)
    monkeypatch.setattr(trainer, "train_step", poisoned_step)
    monkeypatch.setattr(trainer, "SECONDS_BETWEEN_SAVES", 0)
    with pytest.raises(NonFiniteError, match=rf"at step {step}\b"):
        fit(config, tiny_dataset, run_dir, console)
    saved, _ = load_newest_state(run_dir)
    assert (saved.step if saved else 0) == step // 8 * 8
    if saved:
        assert all(torch.isfinite(t).all() for t in saved.tensors.values() if t.is_floating_point())
    assert load_record(run_dir).status.startswith("failed")
    assert f"step {step}" in config.log_file.read_text()


def test_weights_that_blow_up_in_the_last_step_never_reach_the_best_model(
    tiny_config, tiny_dataset, tmp_path, console, monkeypatch
):
    def step_and_poison(state, images, labels):
        train_step(state, images, labels)
        if state.step == 16:
            with torch.no_grad():
                state.model.head.bias[0] = float("inf")

    monkeypatch.setattr(trainer, "train_step", step_and_poison)
    with pytest.raises(NonFiniteError, match="step 16"):
        fit(tiny_config, tiny_dataset, tmp_path / "run", console)
    assert load_bundle(tiny_config.checkpoint_path).provenance["metrics"]["epoch"] == 0
    assert len(load_record(tmp_path / "run").history.epochs) == 1


def test_a_step_learns_a_batch_by_heart(tiny_config, tiny_dataset):
    config = dataclasses.replace(
        tiny_config, dropout=0.0, warmup_epochs=0, epochs=100, lr=0.1, crop_padding=0, flip=False
    )
    state, loader = begun(config, tiny_dataset)
    images, labels = next(loader.batches(0))
    train_step(state, images, labels)
    (first,) = state.losses.read(0, 1)
    for _ in range(59):
        train_step(state, images, labels)
    (last,) = state.losses.read(3, 4)
    assert last < 0.5 * first
    state.model.eval()
    assert (state.model(state.preprocess(images)).argmax(1) == labels).float().mean() > 0.95


def test_bf16_and_fp32_agree_on_a_step(tiny_config, tiny_dataset):
    losses = {}
    for precision in ("fp32", "bf16"):
        config = dataclasses.replace(tiny_config, dropout=0.0, precision=precision)
        state, loader = begun(config, tiny_dataset)
        train_step(state, *next(loader.batches(0)))
        losses[precision] = state.losses.read(0, 1)[0]
    # bf16 keeps 8 bits: a loss near 4.6 may be off by about 1%.
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.01)
    assert losses["bf16"] != losses["fp32"]


def test_the_network_learns_on_small_images_first(speedy_config, tiny_dataset, tmp_path, console):
    sizes = []

    def note_size(module, inputs):
        if isinstance(module, SpeedNet) and module.training:
            sizes.append(inputs[0].shape[-1])

    with torch.nn.modules.module.register_module_forward_pre_hook(note_size):
        fit(speedy_config, tiny_dataset, tmp_path / "run", console)
    assert sizes == [16] * 10 + [20] * 14
    assert load_bundle(speedy_config.checkpoint_path).preprocess.image_size == 20


@pytest.mark.parametrize("name", ["tiny_config", "speedy_config"])
def test_warming_up_leaves_no_trace(name, tiny_dataset, request):
    config = request.getfixturevalue(name)
    state, loader = begun(config, tiny_dataset)
    images, labels = next(loader.batches(0))
    for step in range(2):
        before = {name: tensor.clone() for name, tensor in state.tensors().items()}
        warm_up(state, images, labels)
        after = state.tensors()
        assert before.keys() <= after.keys()
        for name, tensor in after.items():  # no buffer of an optimizer is the same as one of zeros
            assert torch.equal(before.get(name, torch.zeros_like(tensor)), tensor), name
        assert all(p.grad is None for p in state.model.parameters())
        assert state.step == step
        train_step(state, images, labels)


@pytest.mark.parametrize(("step", "sizes"), [(0, [16, 20]), (9, [16, 20]), (10, [20]), (23, [20])])
def test_only_sizes_of_images_that_come_are_warmed_up(
    step, sizes, speedy_config, tiny_dataset, monkeypatch
):
    state, loader = begun(speedy_config, tiny_dataset)
    state.step = step
    seen = []
    monkeypatch.setattr(step_module, "update", lambda *given: seen.append(given[-1]))
    warm_up(state, *next(loader.batches(0)))
    assert seen == sizes


def test_early_images_that_are_too_small_are_refused_before_the_first_step(
    speedy_config, tiny_dataset, tmp_path, console
):
    config = dataclasses.replace(speedy_config, early_sizes=(12,))
    with pytest.raises(ConfigError, match="12"):
        fit(config, tiny_dataset, tmp_path / "run", console)


def test_a_step_that_cannot_be_captured_is_taken_as_it_is_and_the_run_says_so(
    speedy_config, tiny_dataset, monkeypatch
):
    """On a GPU; here the device is one by name alone."""
    state, loader = begun(speedy_config, tiny_dataset)
    before = {name: tensor.clone() for name, tensor in state.tensors().items()}
    tried, left = [], []

    def no_graph(_state, _images, _targets, image_size):
        tried.append(image_size)
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(step_module, "StepGraph", no_graph)
    monkeypatch.setattr(step_module, "_leave_capture", lambda: left.append(1))
    state.runtime = dataclasses.replace(state.runtime, device=torch.device("cuda"))
    images, targets = next(loader.batches(0))
    note = warm_up(state, images, targets)
    assert "could not be captured" in note
    assert "not permitted" in note
    assert state.runtime.notes[-1] in note  # and so in env.json
    assert (tried, left, state.graphs) == ([16], [1], {})  # it would fail at each size
    for name, tensor in before.items():
        assert torch.equal(state.tensors()[name], tensor), name
    train_step(state, images, targets)
    assert state.step == 1


def test_the_average_follows_the_weights(tiny_config, tiny_dataset, tmp_path, console):
    config = dataclasses.replace(tiny_config, ema_decay=0.5)
    fit(config, tiny_dataset, tmp_path / "run", console)
    saved, _ = load_newest_state(tmp_path / "run")
    name = "stages.0.0.conv1.weight"
    distance = (saved.tensors[f"ema.{name}"] - saved.tensors[f"model.{name}"]).norm()
    assert 0 < distance < 0.1 * saved.tensors[f"model.{name}"].norm()
