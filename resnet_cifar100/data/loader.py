"""Batches from images that live on the device as uint8: no workers, no queues, no state.

After the loader of airbench (Jordan 2024, https://arxiv.org/abs/2404.00498): a whole CIFAR set is
150 MB, so cutting batches out of it and augmenting them there costs less than handing them over
from other processes.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from resnet_cifar100.config import Config
from resnet_cifar100.data.augment import Augment, seeded_generator
from resnet_cifar100.data.transforms import Crops
from resnet_cifar100.parallel import rank, world_size

GROUP_IMAGES = 2048  # cut and augmented at once: on a GPU each operation on fewer costs as much


class Split(NamedTuple):
    """Images uint8 (S,3,32,32) and labels int64 (S,)."""

    images: Tensor
    labels: Tensor

    def to(self, device: torch.device) -> "Split":
        """Return the split on `device`."""
        return Split(self.images.to(device), self.labels.to(device))

    def pick(self, indices: Tensor) -> "Split":
        """Return some of the images, in the order of `indices`."""
        return Split(self.images[indices], self.labels[indices])


class EpochPlan(NamedTuple):
    """Order, crops and flips of one epoch."""

    order: Tensor  # (S,) int64, a permutation
    offsets: Tensor  # (S,2) int64, top and left of each crop
    flips: Tensor  # (S,) bool


def plan_epoch(
    size: int, *, seed: int, epoch: int, padding: int, flip: bool, alternating_flip: bool = False
) -> EpochPlan:
    """Draw an epoch as a pure function of (seed, epoch): a resumed run sees the same images.

    Alternating flip mirrors one random half of the images in even epochs, the other half in odd
    ones, so that two epochs always show both views (Jordan 2024, section 3.6,
    https://arxiv.org/abs/2404.00498).
    """
    generator = seeded_generator(seed, epoch, 0, 0, 2)
    order = torch.randperm(size, generator=generator)
    offsets = torch.randint(0, 2 * padding + 1, (size, 2), generator=generator)
    if alternating_flip:
        generator = seeded_generator(seed, 0, 0, 0, 3)  # the same in every epoch
    flips = torch.rand(size, generator=generator) < 0.5
    if alternating_flip:  # by image, not by place in the order
        flips = (flips ^ bool(epoch % 2))[order]
    return EpochPlan(order, offsets, flips & flip)


class TrainLoader:
    """Shuffled, augmented training batches; the incomplete last batch of an epoch is dropped.

    Where several processes train together, each gets its own part of every batch.
    """

    def __init__(self, split: Split, config: Config) -> None:
        self.split = split
        self.config = config
        self.augment = Augment(config.augment)
        self.crops = Crops(split.images, config.crop_padding, config.crop_fill)
        self.local_batch_size = min(config.batch_size, len(split.labels)) // world_size()
        self.batch_size = self.local_batch_size * world_size()

    def __len__(self) -> int:
        """Steps per epoch."""
        return len(self.split.labels) // self.batch_size

    def batches(self, epoch: int, first_step: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield uint8 images (N,3,32,32) and targets of an epoch, from `first_step` on.

        Targets are labels, int64 (N,); with mixup or cutmix shares of the classes, float (N,K).
        """
        config, device = self.config, self.split.labels.device
        plan = plan_epoch(
            len(self.split.labels),
            seed=config.seed,
            epoch=epoch,
            padding=config.crop_padding,
            flip=config.flip,
            alternating_flip=config.alternating_flip,
        )
        plan = EpochPlan(*(tensor.to(device) for tensor in plan))
        size, group = self.local_batch_size, max(1, GROUP_IMAGES // self.local_batch_size)
        is_plain = not config.augment or epoch >= config.epochs - config.plain_epochs
        for start in range(first_step - first_step % group, len(self), group):
            stop = min(start + group, len(self))
            places = torch.arange(start * self.batch_size, stop * self.batch_size, device=device)
            mine = places.view(-1, world_size(), size)[:, rank()].flatten()
            chosen = plan.order[mine]
            images = self.crops.cut(chosen, plan.offsets[mine], plan.flips[mine])
            draws = None if is_plain else seeded_generator(config.seed, epoch, start, rank())
            if draws:
                images = self.augment.change(images, draws)
            parts = zip(images.split(size), self.split.labels[chosen].split(size), strict=True)
            for step, (batch, labels) in enumerate(parts, start=start):
                mixed = self.augment.mix(batch, labels, draws)  # draws, even if it is not wanted
                if step >= first_step:
                    yield mixed
