"""The training loop that most people write, in a process of its own.

DataLoader with two workers, crop and flip with Pillow one image at a time, eager, fp32, NCHW, SGD.
The process of its own keeps this project's switches (memory, TF32, choice of kernels) away from it.
"""

import itertools
import multiprocessing
import os
import random
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.images import training_split
from benchmarks.measure import Block, seconds_per_piece
from resnet_cifar100.config import ModelConfig
from resnet_cifar100.constants import IMAGE_SIZE, MEAN, STD
from resnet_cifar100.models.factory import create_model
from resnet_cifar100.models.layers import FastConv2d

LEAST_BATCHES = 8  # two workers often end together, so that two batches would be too few to time


@dataclass(frozen=True, kw_only=True)
class PlainSettings:
    """What the plain loop shares with the loop that it is measured against."""

    model: ModelConfig
    batch_size: int
    padding: int
    device: str
    is_tuned: bool = False
    """Autocast bf16, channels_last, pinned memory and up to eight workers: a better plain loop."""

    @property
    def workers(self) -> int:
        """Processes that load images."""
        return min(8, max(2, os.cpu_count() or 2)) if self.is_tuned else 2

    @property
    def ready_batches(self) -> int:
        """Batches that the workers may have made before the clock, and that are not timed."""
        return 2 * self.workers + 2  # two a worker, and those on their way


class PlainDataset(Dataset[tuple[Tensor, int]]):
    """Images as most tutorials hold them: arrays (H,W,3), made Pillow images one at a time."""

    def __init__(
        self, images: np.ndarray, labels: list[int], padding: int, image_size: int
    ) -> None:
        self.images = images
        self.labels = labels
        self.padding = padding
        self.image_size = image_size
        self.mean = torch.tensor(MEAN).view(3, 1, 1)
        self.std = torch.tensor(STD).view(3, 1, 1)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = crop_and_flip(Image.fromarray(self.images[index]), self.padding)
        if self.image_size != IMAGE_SIZE:
            image = image.resize((self.image_size,) * 2, Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
        return (pixels - self.mean) / self.std, self.labels[index]


def crop_and_flip(image: Image.Image, padding: int) -> Image.Image:
    """Return a random window of the zero-padded image, mirrored half of the time."""
    left, top = random.randint(0, 2 * padding), random.randint(0, 2 * padding)
    padded = ImageOps.expand(image, border=padding)
    window = padded.crop((left, top, left + image.width, top + image.height))
    return ImageOps.mirror(window) if random.random() < 0.5 else window


def plain_batches(settings: PlainSettings) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches without end, epoch after epoch."""
    images, labels = training_split()
    dataset = PlainDataset(
        images.permute(0, 2, 3, 1).numpy(),
        labels.tolist(),
        settings.padding,
        settings.model.image_size,
    )
    loader = DataLoader(
        dataset,
        batch_size=settings.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=settings.workers,
        pin_memory=settings.is_tuned,
    )
    for _ in itertools.count():
        yield from loader


def plain_steps(settings: PlainSettings) -> Iterator[None]:
    """Take one training step at each `next`."""
    device = torch.device(settings.device)
    layout = torch.channels_last if settings.is_tuned else torch.contiguous_format
    model = with_library_convolutions(create_model(settings.model))
    model = model.to(device, memory_format=layout).train()  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    for images, labels in plain_batches(settings):
        images = images.to(device, memory_format=layout, non_blocking=settings.is_tuned)
        labels = labels.to(device, non_blocking=settings.is_tuned)
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=settings.is_tuned):
            loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        loss.item()
        yield


def with_library_convolutions(model: nn.Module) -> nn.Module:
    """Return `model` with each convolution of this project's own made a plain nn.Conv2d."""
    for module in model.modules():
        if isinstance(module, FastConv2d):
            module.__class__ = nn.Conv2d  # type: ignore[assignment]
    return model


def loading_turn(settings: PlainSettings, pieces: int) -> list[float]:
    """Time batches of the loader alone; its workers start before the clock and end after it."""
    with closing(plain_batches(settings)) as batches:  # type: ignore[type-var]
        for _ in range(settings.ready_batches):
            next(batches)
        pieces = max(pieces, LEAST_BATCHES)
        return [seconds_per_piece(partial(next, batches), pieces, torch.device("cpu"))]


def training_turn(settings: PlainSettings, pieces: int) -> list[float]:
    """Time training steps; the workers go on from turn to turn."""
    steps = _started_steps(settings)
    for _ in range(min(settings.ready_batches, pieces - 1)):
        next(steps)
    return [seconds_per_piece(partial(next, steps), pieces, torch.device(settings.device))]


@lru_cache(maxsize=2)
def _started_steps(settings: PlainSettings) -> Iterator[None]:
    steps = plain_steps(settings)
    if settings.device != "cpu":
        next(steps)  # a GPU loads its kernels at the first step
    return steps


def fresh_process() -> ProcessPoolExecutor:
    """Return a process that has nothing of this one; it waits idle until it is given work."""
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))


def loading_block(process: ProcessPoolExecutor, settings: PlainSettings) -> Block:
    """Return the loader alone, as a block that runs in `process`."""
    return lambda pieces: process.submit(loading_turn, settings, pieces).result()


def training_block(process: ProcessPoolExecutor, settings: PlainSettings) -> Block:
    """Return the training step as a block that runs in `process`."""
    return lambda pieces: process.submit(training_turn, settings, pieces).result()
