"""On a GPU: a captured step does what the step does, and whole runs in it end and go on.

make test-gpu
"""

import dataclasses

import pytest
import torch

from resnet_cifar100.engine.record import load_record
from resnet_cifar100.engine.step import train_step, warm_up
from resnet_cifar100.engine.trainer import fit
from tests.interruptions import StoppedError, stop_at
from tests.states import begun

if not torch.cuda.is_available():
    pytest.skip("there is no GPU here, or not with TEST_GPU=1", allow_module_level=True)

MIXED = ("trivial_augment", "mixup", "cutmix")
OPTIONS = {
    "plain": {},
    "bf16": {"precision": "bf16"},
    "average": {"ema_decay": 0.9},
    "sam": {"sam_rho": 0.05},
    "mixed targets": {"augment": MIXED},
    "muon": {"optimizer": "muon", "nesterov": True},
    "two sizes": {"early_sizes": (8,), "early_shares": (0.2,), "image_size": 16},
    "compiled": {"compile": True},
}


@pytest.fixture
def config(tiny_config):
    return dataclasses.replace(tiny_config, device="cuda", ema_decay=0.0)


@pytest.fixture
def teacher(config, tiny_dataset, tmp_path, console):
    """A best_model.pth of the same data."""
    path = tmp_path / "teacher.pth"
    teaching = dataclasses.replace(config, epochs=1, checkpoint_path=path)
    fit(teaching, tiny_dataset, tmp_path / "teaching", console)
    return path


def after_steps(config, dataset, *, is_captured: bool) -> tuple[dict[str, torch.Tensor], list]:
    """Return the tensors of the state after an epoch of eight steps, and the losses of these."""
    state, loader = begun(config, dataset)
    warm_up(state, *next(loader.batches(0)))
    assert state.graphs.keys() == {*config.image_sizes}
    if not is_captured:
        state.graphs.clear()
    state.model.train()
    for images, targets in loader.batches(0):
        train_step(state, images, targets)
    return state.tensors(), state.losses.read(0, 8)


def check_replay(config, dataset) -> None:
    tensors, losses = after_steps(config, dataset, is_captured=True)
    expected, of_steps = after_steps(config, dataset, is_captured=False)
    tolerance = 0.05  # sums are in another order, and eight steps carry that on
    assert losses == pytest.approx(of_steps, rel=tolerance)
    for name, tensor in tensors.items():
        far = (tensor.float() - expected[name].float()).norm()
        assert far <= tolerance * expected[name].float().norm() + 1e-6, name


@pytest.mark.parametrize("name", OPTIONS)
def test_a_replayed_step_does_what_the_step_does(name, config, tiny_dataset):
    """But for dropout, whose draws differ within a graph."""
    config = dataclasses.replace(config, **OPTIONS[name])
    check_replay(dataclasses.replace(config, dropout=0.0), tiny_dataset)


@pytest.mark.parametrize("kind", ["kd", "dkd"])
def test_a_replayed_step_learns_from_a_teacher(kind, config, teacher, tiny_dataset):
    config = dataclasses.replace(config, dropout=0.0, teacher=teacher, distillation=kind)
    check_replay(config, tiny_dataset)


@pytest.mark.parametrize("name", OPTIONS)
def test_a_run_in_graphs_learns_and_goes_on_where_it_was_killed(
    name, config, tiny_dataset, tmp_path, console, monkeypatch
):
    config = dataclasses.replace(config, checkpoint_minutes=0, **OPTIONS[name])
    straight = fit(config, tiny_dataset, tmp_path / "straight", console)
    with monkeypatch.context() as patch:
        stop_at(patch, 13)
        with pytest.raises(StoppedError):
            fit(config, tiny_dataset, tmp_path / "killed", console)
    torch.manual_seed(999)
    with console.capture() as said:
        resumed = fit(config, tiny_dataset, tmp_path / "killed", console)
    assert "could not be captured" not in said.get()
    assert load_record(tmp_path / "killed").status == "finished"
    losses = [[row["train/loss"] for row in run.history.epochs] for run in (straight, resumed)]
    assert losses[0][-1] < losses[0][0]
    assert losses[1] == pytest.approx(losses[0], rel=0.1)
    steps = [row["step"] for row in resumed.history.steps]
    assert steps == [3, 6, 8, 9, 12, 15, 16, 18, 21, 24]
