"""How fast a training step is beside the loop that most people write, measured in one run.

    python -m benchmarks.train_step [--model resnet44v2] [--rounds 5] [--steps 4] [--out FOLDER]

The plain loop: DataLoader with two workers, crop and flip with Pillow one image at a time, eager,
fp32, NCHW. Ours: the step of `train.py` on the same images, eager and compiled. The variants take
turns, so that a busy moment of the machine hits all of them; the ratio of each round is taken, and
the median over the rounds reported with its range.
"""

import argparse
import dataclasses
import json
import random
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from resnet_cifar100.cli.screen import console, say
from resnet_cifar100.config import Config
from resnet_cifar100.constants import MEAN, STD
from resnet_cifar100.data.loader import Split, TrainLoader
from resnet_cifar100.engine.report import markdown_table
from resnet_cifar100.engine.state import create_state
from resnet_cifar100.engine.step import train_step
from resnet_cifar100.models.factory import create_model
from resnet_cifar100.runtime import create_runtime, environment
from resnet_cifar100.storage import replace_file

IMAGES = 50_000
BATCH_SIZE = 128


class PlainDataset(Dataset[tuple[Tensor, int]]):
    """Images as most tutorials hold them: arrays (H,W,3), made Pillow images one at a time."""

    def __init__(self, images: np.ndarray, labels: list[int]) -> None:
        self.images = images
        self.labels = labels
        self.mean = torch.tensor(MEAN).view(3, 1, 1)
        self.std = torch.tensor(STD).view(3, 1, 1)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = ImageOps.expand(Image.fromarray(self.images[index]), border=4)
        left, top = random.randint(0, 8), random.randint(0, 8)
        image = image.crop((left, top, left + 32, top + 32))
        if random.random() < 0.5:
            image = ImageOps.mirror(image)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
        return (pixels - self.mean) / self.std, self.labels[index]


def plain_steps(config: Config, images: Tensor, labels: Tensor) -> Iterator[None]:
    """Take one step of the plain loop at each `next`."""
    arrays = images.permute(0, 2, 3, 1).numpy()
    dataset = PlainDataset(arrays, labels.tolist())
    loader = DataLoader(dataset, batch_size=BATCH_SIZE, shuffle=True, num_workers=2, drop_last=True)
    model = create_model(config.model_config).to(memory_format=torch.contiguous_format)
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=config.lr,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
    )
    while True:
        for batch, targets in loader:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(batch), targets)
            loss.backward()
            optimizer.step()
            loss.item()
            yield


def our_steps(config: Config, images: Tensor, labels: Tensor) -> Iterator[None]:
    """Take one step of this project's loop at each `next`."""
    runtime = create_runtime(config)
    loader = TrainLoader(
        Split(images, labels).to(runtime.device),
        batch_size=BATCH_SIZE,
        seed=0,
        padding=4,
        flip=True,
    )
    state = create_state(config, runtime, loader)
    while True:
        for batch, targets in loader.batches(state.epoch):
            train_step(state, batch, targets)
            yield


def measure(
    variants: dict[str, Iterator[None]], *, rounds: int, steps: int
) -> dict[str, list[float]]:
    """Return the images/s of each variant in each round; a first round warms up uncounted."""
    speeds: dict[str, list[float]] = {name: [] for name in variants}
    for round_number in range(-1, rounds):
        for name, variant in variants.items():
            started = time.perf_counter()
            for _ in range(steps):
                next(variant)
            seconds = time.perf_counter() - started
            if round_number >= 0:
                speeds[name].append(steps * BATCH_SIZE / seconds)
    return speeds


def summarize(speeds: dict[str, list[float]]) -> list[tuple[str, str, str]]:
    """Return (variant, median images/s, median ratio to the plain loop with its range)."""
    rows = []
    for name, values in speeds.items():
        ratios = [a / b for a, b in zip(values, speeds["plain loop"], strict=True)]
        ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        rows.append((name, f"{statistics.median(values):.1f}", ratio))
    return rows


def main() -> None:
    """Measure, print the table, and write it with all samples to the folder given by --out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="resnet44v2")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    config = Config(model=asked.model, batch_size=BATCH_SIZE, device="cpu")
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (IMAGES, 3, 32, 32), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, 100, (IMAGES,), generator=generator)
    variants = {
        "plain loop": plain_steps(config, images, labels),
        "ours, eager": our_steps(config, images, labels),
        "ours, compiled": our_steps(dataclasses.replace(config, compile=True), images, labels),
    }
    if not create_runtime(dataclasses.replace(config, compile=True)).is_compiled:
        raise SystemExit("torch.compile does not work here, so there is nothing to compare")
    speeds = measure(variants, rounds=asked.rounds, steps=asked.steps)
    head = ["Training step", "Images/s (median)", "Ratio to the plain loop (median, range)"]
    table = markdown_table(head, summarize(speeds))
    rounds = f"{asked.rounds} rounds of {asked.steps} steps"
    say(f"{asked.model}, batch {BATCH_SIZE}, {rounds}, in turn")
    console.print(table, highlight=False)
    if asked.out:
        record = {"model": asked.model, "batch_size": BATCH_SIZE, "images_per_s": speeds}
        record |= {"environment": environment()}
        replace_file(asked.out / "result.json", json.dumps(record, indent=2) + "\n")
        replace_file(asked.out / "README.md", f"# {asked.model}: training step on a CPU\n\n{table}")


if __name__ == "__main__":
    main()
