"""Random batches for the tests of augmentation."""

import torch
from torch import Generator, Tensor


def seeded(seed: int) -> Generator:
    return Generator().manual_seed(seed)


def noise(count: int, height: int = 32, width: int = 32, lowest: int = 0) -> Tensor:
    """Return uint8 images (N,3,H,W) of random values from `lowest` to 255."""
    shape = (count, 3, height, width)
    return torch.randint(lowest, 256, shape, generator=seeded(count), dtype=torch.uint8)


def plain(count: int, value: int, height: int = 32, width: int = 32) -> Tensor:
    """Return uint8 images (N,3,H,W) of one value."""
    return torch.full((count, 3, height, width), value, dtype=torch.uint8)
