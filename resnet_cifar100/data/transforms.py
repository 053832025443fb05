"""Augmentation and preprocessing of whole batches, as pure functions on any device.

The draw and the deed are apart: the loader draws offsets and flips, these functions apply them.
"""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resnet_cifar100.constants import MEAN, STD


def crop_and_flip(
    images: Tensor,
    offsets: Tensor,
    flips: Tensor,
    padding: int,
    fill: Literal["zeros", "reflect"] = "zeros",
) -> Tensor:
    """Cut one window out of each padded image and mirror the marked ones.

    Shapes: images (N,C,H,W); offsets (N,2) int64, top and left in 0..2*padding; flips (N,) bool;
    result (N,C,H,W). Padding is of zeros, or the image mirrored at its edge (the edge itself once).
    """
    n, c, h, w = images.shape
    rows = offsets[:, 0, None] + torch.arange(h, device=images.device)  # (N,H)
    columns = torch.arange(w, device=images.device).expand(n, w)
    columns = torch.where(flips[:, None], w - 1 - columns, columns) + offsets[:, 1, None]  # (N,W)
    if fill == "reflect":  # needs no padding: an index outside is mirrored into the image
        rows, columns = _mirrored(rows - padding, h), _mirrored(columns - padding, w)
    else:
        images = F.pad(images, (padding,) * 4)
    rows = rows[:, None, :, None].expand(n, c, h, images.shape[3])
    columns = columns[:, None, None, :].expand(n, c, h, w)
    return images.gather(2, rows).gather(3, columns)


def _mirrored(index: Tensor, size: int) -> Tensor:
    """Map -1, -2, ... to 1, 2, ... and size, size + 1, ... to size - 2, size - 3, ..."""
    return size - 1 - (size - 1 - index.abs()).abs()


class Preprocess(nn.Module):
    """What stands before every network: uint8 (N,3,H,W) -> float32 (N,3,S,S), S = `image_size`.

    Training, evaluation and every exported model go through this one module. Its output is
    channels_last, as the networks are.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, image_size: int, mean: Sequence[float] = MEAN, std: Sequence[float] = STD
    ) -> None:
        super().__init__()
        self.image_size = image_size
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))

    def forward(self, images: Tensor, image_size: int | None = None) -> Tensor:
        """Resize (antialiased bilinear) where the size differs, and normalise.

        `image_size` stands in for S while the network trains on smaller images.
        """
        size = (image_size or self.image_size,) * 2
        floats = images.float() / 255
        if images.shape[-2:] != size:
            floats = F.interpolate(floats, size=size, mode="bilinear", antialias=True)
        return ((floats - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
