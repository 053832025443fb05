"""Runs that stop on the way, and what tells whether they end as one that nothing disturbed."""

import dataclasses
import hashlib
import io
import json
from pathlib import Path
from typing import NamedTuple

import pytest
from rich.console import Console

from resnet_cifar100.config import Config
from resnet_cifar100.data.cifar100 import load_dataset
from resnet_cifar100.engine import trainer
from resnet_cifar100.engine.checkpoint import load_newest_state
from resnet_cifar100.engine.record import RunRecord
from resnet_cifar100.engine.step import train_step
from resnet_cifar100.engine.trainer import fit


class StoppedError(Exception):
    """Stands for a kill: nothing in the program catches it."""


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Let every run end with a StoppedError before this step."""

    def step_or_stop(state, images, labels):
        if state.step == step:
            raise StoppedError
        train_step(state, images, labels)

    monkeypatch.setattr(trainer, "train_step", step_or_stop)


def within(config: Config, folder: Path) -> Config:
    """Return the settings of a run that writes to `folder` alone."""
    return dataclasses.replace(
        config, checkpoint_path=folder / "best_model.pth", log_file=folder / "logs.md"
    )


def fingerprint(run_dir: Path) -> str:
    """Hash every tensor of the newest state, and every row of the history but for the timings."""
    saved, _ = load_newest_state(run_dir)
    digest = hashlib.sha256(str(saved.step).encode())
    for name, tensor in sorted(saved.tensors.items()):
        digest.update(name.encode() + tensor.numpy().tobytes())
    timings = {"train_seconds", "speed/images_per_s"}
    for row in [*saved.history.epochs, *saved.history.steps]:
        digest.update(json.dumps({k: v for k, v in row.items() if k not in timings}).encode())
    return digest.hexdigest()


class Straight(NamedTuple):
    """A run that nothing disturbed, in `folder`/run; its best_model.pth is beside that."""

    folder: Path
    record: RunRecord
    fingerprint: str


def train_straight(config: Config, folder: Path) -> Straight:
    """Train with these settings, but write to `folder` alone."""
    config = within(config, folder)
    record = fit(config, load_dataset(config), folder / "run", Console(file=io.StringIO()))
    return Straight(folder, record, fingerprint(folder / "run"))
