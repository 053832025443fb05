"""A run that was stopped anywhere and resumed ends with the bits of one that was not."""

import dataclasses
import os
import shutil
import signal

import pytest
import torch

from resnet_cifar100.bundle import load_bundle
from resnet_cifar100.engine import trainer
from resnet_cifar100.engine.checkpoint import load_newest_state
from resnet_cifar100.engine.record import load_record
from resnet_cifar100.engine.step import train_step
from resnet_cifar100.engine.trainer import fit
from resnet_cifar100.errors import CheckpointError, ConfigError, InterruptedRunError
from resnet_cifar100.runtime import compile_fault
from tests.interruptions import StoppedError, fingerprint, stop_at


@pytest.fixture
def uninterrupted(tiny_config, straight) -> str:
    return straight(tiny_config).fingerprint


@pytest.fixture
def speedy_uninterrupted(speedy_config, straight) -> str:
    return straight(speedy_config).fingerprint


@pytest.mark.parametrize("step", [1, 7, 8, 13, 23])
def test_a_run_killed_at_a_step_and_resumed_matches_an_uninterrupted_one(
    step, uninterrupted, tiny_config, tiny_dataset, tmp_path, console, monkeypatch
):
    config = dataclasses.replace(tiny_config, checkpoint_minutes=0)  # save after every step
    with monkeypatch.context() as patch:
        stop_at(patch, step)
        with pytest.raises(StoppedError):
            fit(config, tiny_dataset, tmp_path / "killed", console)
    torch.manual_seed(999)  # the generator of a new process is elsewhere
    record = fit(config, tiny_dataset, tmp_path / "killed", console)
    assert record.status == "finished"
    assert fingerprint(tmp_path / "killed") == uninterrupted


def test_a_run_of_all_that_is_fast_killed_thrice_matches_an_uninterrupted_one(
    speedy_uninterrupted, speedy_config, tiny_dataset, tmp_path, console, monkeypatch
):
    config = dataclasses.replace(speedy_config, checkpoint_minutes=0)
    for step in (8, 10, 13):  # a new epoch, the first larger images, neither
        with monkeypatch.context() as patch:
            stop_at(patch, step)
            with pytest.raises(StoppedError):
                fit(config, tiny_dataset, tmp_path / "killed", console)
        assert load_newest_state(tmp_path / "killed")[0].step == step
        torch.manual_seed(999)
    fit(config, tiny_dataset, tmp_path / "killed", console)
    assert fingerprint(tmp_path / "killed") == speedy_uninterrupted


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_the_step_and_the_run_goes_on_from_there(
    number, uninterrupted, tiny_config, tiny_dataset, tmp_path, console, monkeypatch
):
    def step_and_signal(state, images, labels):
        train_step(state, images, labels)
        if state.step == 12:
            os.kill(os.getpid(), number)

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "train_step", step_and_signal)
        with pytest.raises(InterruptedRunError, match="step 12 of 24") as stopped:
            fit(tiny_config, tiny_dataset, tmp_path / "signalled", console)
    assert stopped.value.exit_code == 128 + number
    saved, _ = load_newest_state(tmp_path / "signalled")
    assert saved.step == 12
    fit(tiny_config, tiny_dataset, tmp_path / "signalled", console)
    assert fingerprint(tmp_path / "signalled") == uninterrupted


def test_more_epochs_may_be_asked_for_and_it_is_said(
    tiny_config, tiny_dataset, tmp_path, console, straight
):
    shutil.copytree(straight(tiny_config).folder / "run", tmp_path / "run")
    longer = dataclasses.replace(tiny_config, epochs=4)
    with console.capture() as output:
        record = fit(longer, tiny_dataset, tmp_path / "run", console)
    assert "epochs 3 -> 4" in output.get()
    assert len(record.history.epochs) == 4
    again = fit(longer, tiny_dataset, tmp_path / "run", console)  # nothing is changed this time
    changes = [session.get("changes") for session in again.environments]
    assert changes == [None, ["Changed for the rest of the run: epochs 3 -> 4."]]
    assert load_record(tmp_path / "run").is_changed
    page = (tmp_path / "logs.md").read_text()
    assert "The same training again" not in page
    assert "it was resumed with other settings" in page


def test_a_run_killed_before_its_first_save_starts_again_and_says_so(
    uninterrupted, tiny_config, tiny_dataset, tmp_path, console, monkeypatch
):
    with monkeypatch.context() as patch:
        stop_at(patch, 3)
        with pytest.raises(StoppedError):
            fit(tiny_config, tiny_dataset, tmp_path / "early", console)
    with console.capture() as output:
        fit(tiny_config, tiny_dataset, tmp_path / "early", console)
    assert "No state was saved" in output.get()
    assert fingerprint(tmp_path / "early") == uninterrupted


def test_fewer_epochs_than_are_begun_are_refused(
    tiny_config, tiny_dataset, tmp_path, console, monkeypatch
):
    config = dataclasses.replace(tiny_config, checkpoint_minutes=0)
    with monkeypatch.context() as patch:
        stop_at(patch, 12)
        with pytest.raises(StoppedError):
            fit(config, tiny_dataset, tmp_path / "run", console)
    with pytest.raises(ConfigError, match="at least 2"):
        fit(dataclasses.replace(config, epochs=1), tiny_dataset, tmp_path / "run", console)
    record = fit(dataclasses.replace(config, epochs=2), tiny_dataset, tmp_path / "run", console)
    assert len(record.history.epochs) == 2


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # those of torch's own compiler
def test_a_compiled_run_resumes_to_the_same_bits(
    tiny_config, tiny_dataset, tmp_path, console, monkeypatch
):
    if fault := compile_fault(torch.device("cpu")):
        pytest.skip(f"torch.compile does not work here: {fault}")
    config = dataclasses.replace(tiny_config, compile=True, epochs=2, checkpoint_minutes=0)
    fit(config, tiny_dataset, tmp_path / "straight", console)
    with monkeypatch.context() as patch:
        stop_at(patch, 5)
        with pytest.raises(StoppedError):
            fit(config, tiny_dataset, tmp_path / "killed", console)
    torch.compiler.reset()
    torch.manual_seed(999)
    record = fit(config, tiny_dataset, tmp_path / "killed", console)
    notes = [note for session in record.environments for note in session["runtime"]]
    assert sum(note.startswith("Compiled") for note in notes) == 2
    assert fingerprint(tmp_path / "killed") == fingerprint(tmp_path / "straight")


def test_a_finished_run_resumes_to_its_result(
    tiny_config, tiny_dataset, tmp_path, console, straight
):
    first = straight(tiny_config)
    shutil.copytree(first.folder / "run", tmp_path / "run")
    again = fit(tiny_config, tiny_dataset, tmp_path / "run", console)
    assert again.result == first.record.result
    assert len(again.history.epochs) == 3


def test_a_second_writer_is_refused(tiny_config, tiny_dataset, tmp_path, console, monkeypatch):
    def step_with_intruder(state, images, labels):
        train_step(state, images, labels)
        with pytest.raises(CheckpointError, match="another process"):
            fit(tiny_config, tiny_dataset, tmp_path / "run", console)

    config = dataclasses.replace(tiny_config, epochs=1, warmup_epochs=0)
    monkeypatch.setattr(trainer, "train_step", step_with_intruder)
    fit(config, tiny_dataset, tmp_path / "run", console)


def test_the_best_model_is_the_average_that_was_measured(tiny_config, straight):
    folder, record, _ = straight(tiny_config)
    saved, _ = load_newest_state(folder / "run")
    bundle = load_bundle(folder / "best_model.pth")
    assert torch.equal(bundle.model.head.weight, saved.tensors["ema.head.weight"])
    assert record.result["test/top1"] == record.history.epochs[-1]["test/top1"]
    assert bundle.provenance["dataset"] == "SYNTHETIC"
