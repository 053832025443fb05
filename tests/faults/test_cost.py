"""What a training state of the documented network takes."""

import time

import pytest

from resnet_cifar100.config import Config
from resnet_cifar100.data.loader import Split, TrainLoader
from resnet_cifar100.engine.checkpoint import save_state
from resnet_cifar100.engine.state import create_state
from resnet_cifar100.engine.step import train_step
from resnet_cifar100.runtime import create_runtime


def test_what_a_state_of_resnet44v2_costs(tiny_dataset, tmp_path, full, figure, monkeypatch):
    if not full:
        pytest.skip("a figure, and no promise: --full has it")
    monkeypatch.undo()  # the disk is waited for
    config = Config(device="cpu", batch_size=100, ema_decay=0.999)
    loader = TrainLoader(Split(*tiny_dataset.train), config)
    state = create_state(config, create_runtime(config), loader)
    train_step(state, *next(loader.batches(0)))  # now there is momentum to save
    seconds = []
    for state.step in range(1, 6):
        started = time.perf_counter()
        folder = save_state(state, tmp_path)
        seconds.append(time.perf_counter() - started)
    size = sum(file.stat().st_size for file in folder.iterdir())
    figure("a state of resnet44v2", f"{size / 1e6:.1f} MB in {sorted(seconds)[2]:.2f} s")
