"""What a resumed run may change, and what it passes over to find a state."""

import dataclasses
from pathlib import Path

import pytest
import torch

from resnet_cifar100.config import Config
from resnet_cifar100.engine.checkpoint import STATE, TENSORS, load_newest_state, save_state
from resnet_cifar100.engine.resume import CHANGEABLE, resume_if_present
from resnet_cifar100.engine.trainer import fit
from resnet_cifar100.errors import CheckpointError
from tests.interruptions import StoppedError, fingerprint, stop_at
from tests.states import begun

OTHERS = {
    "recipe": "fast",
    "model": "resnet20",
    "width": 2.0,
    "dropout": 0.0,
    "stochastic_depth": 0.1,
    "squeeze_excitation": True,
    "zero_init": True,
    "image_size": 16,
    "early_sizes": (8,),
    "early_shares": (0.5,),
    "dataset": "cifar100",
    "val_size": 100,
    "train_size": 100,
    "crop_padding": 0,
    "crop_fill": "reflect",
    "flip": False,
    "alternating_flip": True,
    "augment": ("mixup",),
    "plain_epochs": 1,
    "batch_size": 40,
    "optimizer": "muon",
    "muon_lr": 0.1,
    "muon_momentum": 0.5,
    "lr": 0.01,
    "momentum": 0.8,
    "nesterov": True,
    "weight_decay": 0.1,
    "decay_norms": False,
    "schedule": "linear",
    "warmup_epochs": 0.0,
    "label_smoothing": 0.0,
    "grad_clip_norm": 0.0,
    "sam_rho": 0.1,
    "sam_adaptive": True,
    "ema_decay": 0.8,
    "ema_images": 100,
    "distillation": "kd",
    "distillation_weight": 0.4,
    "temperature": 2.0,
    "seed": 1,
    "sync_norms": True,
}
BY_CONTENT = {"teacher"}  # wherever its file lies: tests/engine/test_teacher.py


@pytest.fixture
def saved_run(tiny_config, tiny_dataset, tmp_path):
    state, _ = begun(tiny_config, tiny_dataset)
    save_state(state, tmp_path / "run")
    return state, tmp_path / "run"


def test_every_setting_is_changeable_or_tried_here():
    fields = {field.name for field in dataclasses.fields(Config)}
    assert {*OTHERS, *CHANGEABLE, *BY_CONTENT} == fields
    assert not OTHERS.keys() & CHANGEABLE


@pytest.mark.parametrize("field", OTHERS)
def test_a_setting_that_changes_what_is_learned_is_refused(field, saved_run):
    state, run_dir = saved_run
    before = getattr(state.config, field)
    state.config = changed(state.config, field)
    with pytest.raises(CheckpointError) as refused:
        resume_if_present(state, run_dir)
    assert f"{field} {before} -> {OTHERS[field]}" in str(refused.value)


def changed(config: Config, field: str) -> Config:
    """Return `config` with one other value, though a run would not begin with it."""
    other = dataclasses.replace(config)
    object.__setattr__(other, field, OTHERS[field])
    return other


def test_where_a_run_goes_on_and_for_how_long_may_change_and_is_said(saved_run):
    state, run_dir = saved_run
    changes = {
        "data_dir": Path("elsewhere"),
        "checkpoint_path": Path("elsewhere/best_model.pth"),
        "log_file": Path("elsewhere/logs.md"),
        "num_threads": 2,
        "keep_checkpoints": 5,
        "max_hours": 1.5,
        "epochs": 7,
        "compile": True,
        "precision": "bf16",
        "kernels": False,
    }
    before = state.config
    state.config = dataclasses.replace(before, **changes)
    notes = "\n".join(resume_if_present(state, run_dir))
    for field, value in changes.items():
        assert f"rest of the run: {field} {getattr(before, field)} -> {value}." in notes
    noted = {sentence.split(": ")[1].split()[0] for sentence in state.changes}
    assert noted == {"compile", "epochs", "precision"}  # no folder, which others should not see


@pytest.mark.parametrize("part", [TENSORS, STATE])
def test_a_damaged_newest_state_is_passed_over_to_the_same_end(
    part, tiny_config, tiny_dataset, tmp_path, console, monkeypatch, straight
):
    config = dataclasses.replace(tiny_config, checkpoint_minutes=0)
    with monkeypatch.context() as patch:
        stop_at(patch, 13)
        with pytest.raises(StoppedError):
            fit(config, tiny_dataset, tmp_path / "run", console)
    newest = load_newest_state(tmp_path / "run")[0].folder
    content = bytearray((newest / part).read_bytes())
    content[len(content) // 2] ^= 1
    (newest / part).write_bytes(content)
    torch.manual_seed(999)
    with console.capture() as said:
        fit(config, tiny_dataset, tmp_path / "run", console)
    assert f"{part} is damaged" in said.get().replace("\n", " ")
    assert "at step 12 of 24" in said.get().replace("\n", " ")
    assert fingerprint(tmp_path / "run") == straight(tiny_config).fingerprint
