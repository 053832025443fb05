"""The images that the benchmarks read: CIFAR-100 where it is in data/, else random bytes."""

from functools import cache
from pathlib import Path

import torch

from resnet_cifar100.constants import CIFAR100
from resnet_cifar100.data.cifar100 import find_cifar100, read_dataset
from resnet_cifar100.data.loader import Split

IMAGES = 50_000


@cache
def training_split() -> Split:
    """Return 50,000 images with labels; their content does not change what a step costs."""
    folder = find_cifar100(Path("data"))
    if folder:
        return read_dataset(folder, title=CIFAR100).train
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (IMAGES, 3, 32, 32), generator=generator, dtype=torch.uint8)
    return Split(images, torch.randint(0, 100, (IMAGES,), generator=generator))
