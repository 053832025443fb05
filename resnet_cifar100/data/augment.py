"""Augmentation of whole batches on any device: what `--augment` names, one function each.

Each is a pure function of a batch and a generator on the CPU, so that the draws are the same on
every device and a resumed run makes them again. A new one is a function and a line in
AUGMENTATIONS, or in MIXTURES if it changes the targets.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from resnet_cifar100.constants import MEAN, NUM_CLASSES
from resnet_cifar100.data.operations import (
    OPERATIONS,
    brightness,
    color,
    contrast,
    rotate,
    to_device,
)
from resnet_cifar100.errors import ConfigError

LEVELS = 31  # of strength in TrivialAugment and RandAugment
_GREY = torch.tensor([round(255 * mean) for mean in MEAN], dtype=torch.uint8).view(1, 3, 1, 1)


def cutout(images: Tensor, generator: Generator, side: float) -> Tensor:
    """Blank a square of `side` pixels around a random pixel, as far as it is inside.

    DeVries and Taylor 2017, https://arxiv.org/abs/1708.04552. Blank is the mean of CIFAR-100, which
    is 0 once normalised, as the authors have it.
    """
    tops, lefts = (
        torch.randint(0, size, (len(images),), generator=generator) - round(side) // 2
        for size in images.shape[2:]
    )
    boxes = torch.stack([tops, lefts, tops + round(side), lefts + round(side)], dim=1)
    return torch.where(_inside(boxes, images), to_device(_GREY, images.device), images)


def random_erasing(images: Tensor, generator: Generator, probability: float) -> Tensor:
    """Fill a random rectangle of 2% to 40% of some images with noise.

    Zhong et al. 2017, https://arxiv.org/abs/1708.04896; one that does not fit is cut to the image.
    """
    count, (height, width) = len(images), images.shape[2:]
    shares, shapes, down, across, luck = torch.rand(5, count, generator=generator)
    areas = (0.02 + 0.38 * shares) * height * width
    aspects = 0.3 + (1 / 0.3 - 0.3) * shapes  # height by width
    heights = (areas * aspects).sqrt().round().clamp(1, height)
    widths = (areas / aspects).sqrt().round().clamp(1, width)
    tops = (down * (height - heights + 1)).floor()
    lefts = (across * (width - widths + 1)).floor()
    heights = heights * (luck < probability)
    boxes = torch.stack([tops, lefts, tops + heights, lefts + widths], dim=1).long()
    # Eight bytes a draw: one byte at a time takes nine times as long.
    draws = torch.randint(-(2**63), 2**63 - 1, (images.numel() // 8 + 1,), generator=generator)
    noise = draws.view(torch.uint8)[: images.numel()].view(images.shape)
    return torch.where(_inside(boxes, images), to_device(noise, images.device), images)


def rotation(images: Tensor, generator: Generator, degrees: float) -> Tensor:
    """Turn each image by up to `degrees` either way; the corners that come in are black."""
    return rotate(images, degrees * (2 * torch.rand(len(images), generator=generator) - 1))


def color_jitter(images: Tensor, generator: Generator, strength: float) -> Tensor:
    """Change brightness, contrast and saturation by factors from 1 - strength to 1 + strength."""
    draws = torch.rand(3, len(images), generator=generator)
    for operation, factors in zip(
        (brightness, contrast, color), 1 + strength * (2 * draws - 1), strict=True
    ):
        images = operation(images, factors)
    return images


def trivial_augment(images: Tensor, generator: Generator, strongest: float) -> Tensor:
    """Apply one operation to each image, of a strength drawn from 0 to `strongest`.

    Mueller and Hutter 2021, https://arxiv.org/abs/2103.10158.
    """
    levels = torch.randint(0, LEVELS, (len(images),), generator=generator)
    return _apply_one_each(images, strongest * levels / (LEVELS - 1), generator)


def rand_augment(images: Tensor, generator: Generator, level: float) -> Tensor:
    """Apply two operations of the strength `level`, 0 to 30, to each image.

    Cubuk et al. 2019, https://arxiv.org/abs/1909.13719.
    """
    for _ in range(2):
        strengths = torch.full((len(images),), level / (LEVELS - 1))
        images = _apply_one_each(images, strengths, generator)
    return images


def mixup(
    images: Tensor, targets: Tensor, generator: Generator, alpha: float
) -> tuple[Tensor, Tensor]:
    """Blend each image and target with another of the batch, in shares from Beta(alpha, alpha).

    Zhang et al. 2018, https://arxiv.org/abs/1710.09412: one share a batch.
    """
    share = draw_beta(alpha, generator)
    others = to_device(torch.randperm(len(images), generator=generator), images.device)
    mixed = torch.lerp(images[others].float(), images.float(), share)
    return mixed.round().to(torch.uint8), torch.lerp(targets[others], targets, share)


def cutmix(
    images: Tensor, targets: Tensor, generator: Generator, probability: float
) -> tuple[Tensor, Tensor]:
    """Paste a rectangle of another image of the batch into each one, in a part of the batches.

    Yun et al. 2019, https://arxiv.org/abs/1905.04899, with alpha = 1. The share of a target is that
    of the pixels of its image which are left.
    """
    height, width = images.shape[2:]
    luck, cut, down, across = torch.rand(4, generator=generator).tolist()
    others = to_device(torch.randperm(len(images), generator=generator), images.device)
    if luck >= probability:
        return images, targets
    half_height, half_width = (round(size * cut**0.5 / 2) for size in (height, width))
    y, x = int(down * height), int(across * width)
    rows = slice(max(0, y - half_height), y + half_height)
    columns = slice(max(0, x - half_width), x + half_width)
    mixed = images.clone()
    mixed[:, :, rows, columns] = images[others, :, rows, columns]
    pasted = mixed[0, 0, rows, columns].numel() / (height * width)
    return mixed, torch.lerp(targets, targets[others], pasted)


def draw_beta(alpha: float, generator: Generator) -> float:
    """Draw from Beta(alpha, alpha), with NumPy, because torch's own takes no generator."""
    seed = int(torch.randint(2**63 - 1, (), generator=generator))
    return float(np.random.default_rng(seed).beta(alpha, alpha))


class Augmentation(NamedTuple):
    """An augmentation: its function, the strength that it has unless told, and the limits of it."""

    apply: Callable[..., Any]
    strength: float
    least: float
    most: float


AUGMENTATIONS = {
    "cutout": Augmentation(cutout, 8, 1, 32),
    "random_erasing": Augmentation(random_erasing, 0.5, 0, 1),
    "rotation": Augmentation(rotation, 15, 0, 180),
    "color_jitter": Augmentation(color_jitter, 0.4, 0, 1),
    "trivial_augment": Augmentation(trivial_augment, 1, 0, 1),
    "rand_augment": Augmentation(rand_augment, 9, 0, 30),
}
MIXTURES = {  # these change images and targets of a batch
    "mixup": Augmentation(mixup, 1.0, 0.01, 10),
    "cutmix": Augmentation(cutmix, 0.5, 0, 1),
}


class Augment:
    """The augmentations of a run, in the order in which they were named: "cutout:16", "mixup".

    Of several that mix, each batch takes one.

    Raises:
        ConfigError: for an unknown name, or a strength outside its limits.
    """

    def __init__(self, names: Sequence[str]) -> None:
        chosen = [_parse(name) for name in names]
        self.changes, self.mixtures = (
            [(known[kind].apply, strength) for kind, strength in chosen if kind in known]
            for known in (AUGMENTATIONS, MIXTURES)
        )

    def change(self, images: Tensor, generator: Generator) -> Tensor:
        """Return uint8 images (N,3,H,W) with all that changes each by itself."""
        for apply, strength in self.changes:
            images = apply(images, generator, strength)
        return images

    def mix(
        self, images: Tensor, labels: Tensor, generator: Generator | None
    ) -> tuple[Tensor, Tensor]:
        """Return a batch with what mixes its images; without a generator images as they are."""
        if not self.mixtures:
            return images, labels
        targets = F.one_hot(labels, NUM_CLASSES).float()
        if generator is None:
            return images, targets
        index = int(torch.randint(0, len(self.mixtures), (), generator=generator))
        apply, strength = self.mixtures[index]
        mixed: tuple[Tensor, Tensor] = apply(images, targets, generator, strength)
        return mixed


def seeded_generator(*numbers: int) -> Generator:
    """Return a generator of `mixed_seed` on the CPU."""
    return Generator().manual_seed(mixed_seed(*numbers))


def mixed_seed(*numbers: int) -> int:
    """Return a seed that depends on these numbers alone; zeros at the end do not count.

    No two kinds of draws of a run have the same numbers:

        seed, epoch, first step of a group, process   augmentation
        seed, step, process, 0, 1                     dropout, stochastic depth
        seed, epoch, 0, 0, 2                          order, crops, flips
        seed, 0, 0, 0, 3                              the mirrored half of alternating flip
    """
    state = np.random.SeedSequence(numbers).generate_state(1, np.uint64)
    return int(state[0]) >> 1


def _parse(name: str) -> tuple[str, float]:
    """Return the kind of an augmentation and its strength."""
    kind, colon, number = name.partition(":")
    known = {**AUGMENTATIONS, **MIXTURES}
    if kind not in known:
        raise ConfigError(f"--augment must be of {', '.join(known)}, got {name!r}")
    choice = known[kind]
    try:
        strength = float(number) if colon else choice.strength
    except ValueError:
        strength = float("nan")
    if not choice.least <= strength <= choice.most:
        allowed = f"{kind}:NUMBER with a number in {choice.least:g} to {choice.most:g}"
        raise ConfigError(f"--augment must be {allowed}, got {name!r}")
    return kind, strength


def _inside(boxes: Tensor, images: Tensor) -> Tensor:
    """Mark the pixels in each image's box (top, left, bottom, right; the last two outside).

    Shapes: boxes (N,4) int64; result (N,1,H,W) bool, on the device of the images.
    """
    height, width = images.shape[2:]
    top, left, bottom, right = to_device(boxes, images.device)[:, :, None].unbind(1)
    y, x = (torch.arange(size, device=images.device) for size in (height, width))
    rows, columns = (y >= top) & (y < bottom), (x >= left) & (x < right)
    return rows[:, None, :, None] & columns[:, None, None, :]


def _apply_one_each(images: Tensor, strengths: Tensor, generator: Generator) -> Tensor:
    """Apply a random operation to each image, in either direction; strengths (N,) in 0..1."""
    count = len(images)
    chosen = torch.randint(0, len(OPERATIONS), (count,), generator=generator)
    signs = 2 * torch.randint(0, 2, (count,), generator=generator) - 1
    result = images.clone()
    for index, operation in enumerate(OPERATIONS.values()):
        mine = (chosen == index).nonzero()[:, 0]
        if len(mine):
            where = to_device(mine, images.device)
            result[where] = operation(images[where], (strengths * signs)[mine])
    return result
