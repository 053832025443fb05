"""Batches from images that live on the device as uint8: no workers, no queues, no state.

After the loader of airbench (Jordan 2024, https://arxiv.org/abs/2404.00498): a whole CIFAR set is
150 MB, so cutting batches out of it and augmenting them there costs less than handing them over
from other processes.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from resnet_cifar100.data.transforms import crop_and_flip


class Split(NamedTuple):
    """Images uint8 (S,3,32,32) and labels int64 (S,)."""

    images: Tensor
    labels: Tensor

    def to(self, device: torch.device) -> "Split":
        """Return the split on `device`."""
        return Split(self.images.to(device), self.labels.to(device))


class EpochPlan(NamedTuple):
    """All that is random about the images of one epoch."""

    order: Tensor  # (S,) int64, a permutation
    offsets: Tensor  # (S,2) int64, top and left of each crop
    flips: Tensor  # (S,) bool


def plan_epoch(size: int, *, seed: int, epoch: int, padding: int, flip: bool) -> EpochPlan:
    """Draw an epoch as a pure function of (seed, epoch): a resumed run sees the same images."""
    generator = torch.Generator().manual_seed((seed << 20) + epoch)
    return EpochPlan(
        order=torch.randperm(size, generator=generator),
        offsets=torch.randint(0, 2 * padding + 1, (size, 2), generator=generator),
        flips=(torch.rand(size, generator=generator) < 0.5) & flip,
    )


class TrainLoader:
    """Shuffled, augmented training batches; the incomplete last batch of an epoch is dropped."""

    def __init__(
        self, split: Split, *, batch_size: int, seed: int, padding: int, flip: bool
    ) -> None:
        self.split = split
        self.batch_size = min(batch_size, len(split.labels))
        self.seed = seed
        self.padding = padding
        self.flip = flip

    def __len__(self) -> int:
        """Steps per epoch."""
        return len(self.split.labels) // self.batch_size

    def batches(self, epoch: int, first_step: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield uint8 images (N,3,32,32) and labels (N,) of an epoch, from `first_step` on."""
        device = self.split.labels.device
        size = len(self.split.labels)
        plan = plan_epoch(size, seed=self.seed, epoch=epoch, padding=self.padding, flip=self.flip)
        plan = EpochPlan(*(tensor.to(device) for tensor in plan))
        for step in range(first_step, len(self)):
            part = slice(step * self.batch_size, (step + 1) * self.batch_size)
            chosen = plan.order[part]
            images = crop_and_flip(
                self.split.images[chosen], plan.offsets[part], plan.flips[part], self.padding
            )
            yield images, self.split.labels[chosen]
