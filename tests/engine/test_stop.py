"""Where a run stops, by a signal within an evaluation or by a loss that is not finite on a GPU."""

import dataclasses
import os
import signal

import pytest

from resnet_cifar100.bundle import Bundle
from resnet_cifar100.engine import evaluate as evaluate_module
from resnet_cifar100.engine import step as step_module
from resnet_cifar100.engine import trainer
from resnet_cifar100.engine.checkpoint import load_newest_state
from resnet_cifar100.engine.step import train_step
from resnet_cifar100.engine.trainer import fit
from resnet_cifar100.errors import InterruptedRunError, NonFiniteError
from tests.interruptions import fingerprint


@pytest.mark.parametrize(
    ("place", "name", "step"),
    [(trainer, "_predict", 8), (Bundle, "logits", 24)],
    ids=["of an epoch", "of the result"],
)
def test_a_stop_within_an_evaluation_loses_nothing(
    place, name, step, tiny_config, tiny_dataset, tmp_path, console, monkeypatch
):
    monkeypatch.setattr(evaluate_module, "EVAL_BATCH_SIZE", 50)  # four batches
    straight = fit(tiny_config, tiny_dataset, tmp_path / "straight", console)
    predict, calls = getattr(place, name), []

    def predict_and_signal(*arguments):
        calls.append(1)
        os.kill(os.getpid(), signal.SIGTERM)
        return predict(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(place, name, predict_and_signal)
        with pytest.raises(InterruptedRunError, match=f"step {step} of 24") as stopped:
            fit(tiny_config, tiny_dataset, tmp_path / "run", console)
    assert stopped.value.exit_code == 143
    assert len(calls) == 1  # the other batches were not waited for
    resumed = fit(tiny_config, tiny_dataset, tmp_path / "run", console)
    assert resumed.result == straight.result
    assert fingerprint(tmp_path / "run") == fingerprint(tmp_path / "straight")


@pytest.mark.parametrize(
    ("log_steps", "checkpoint_minutes", "steps"),
    [(3, 1000, 6), (1000, 0, 5)],
    ids=["at the next point of the curve", "before the next save"],
)
def test_a_loss_that_no_step_refuses_ends_the_run(
    log_steps, checkpoint_minutes, steps, tiny_config, tiny_dataset, tmp_path, console, monkeypatch
):
    """As on a GPU, where the losses stay on the device."""
    taken = []

    def step_and_poison(state, images, labels):
        train_step(state, images, labels)
        taken.append(state.step)
        if state.step == 5:
            state.losses.losses[4] = float("nan")

    monkeypatch.setattr(step_module, "_refuse_non_finite", lambda *_: None)
    monkeypatch.setattr(trainer, "train_step", step_and_poison)
    config = dataclasses.replace(
        tiny_config, log_steps=log_steps, checkpoint_minutes=checkpoint_minutes
    )
    with pytest.raises(NonFiniteError, match=r"the loss is nan.* step 4.* A new run with"):
        fit(config, tiny_dataset, tmp_path / "run", console)
    assert taken[-1] == steps
    saved, _ = load_newest_state(tmp_path / "run")
    assert (saved.step if saved else 0) <= 4
