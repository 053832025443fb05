"""Augmentation and preprocessing of whole batches, as pure functions on any device.

The draw and the deed are apart: the loader draws offsets and flips, these functions apply them.
"""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resnet_cifar100.constants import MEAN, STD
from resnet_cifar100.kernels import preprocess


class Crops:
    """Random crops of padded images, mirrored or not, each row of a crop one piece of memory.

    The images (S,C,H,W) are kept padded and in both views, pixel by pixel: a batch is then nothing
    but copies of whole rows, which costs a tenth of looking each byte up. It takes 389 MB for
    CIFAR-100 with two pixels of padding, 480 MB with four.

    Padding is of zeros, or the image mirrored at its edge (the edge itself once), which airbench
    prefers (Jordan 2024, https://arxiv.org/abs/2404.00498).
    """

    def __init__(self, images: Tensor, padding: int, fill: Literal["zeros", "reflect"]) -> None:
        self.count, self.channels, self.height, self.width = images.shape
        self.padding = padding
        images = images.permute(0, 2, 3, 1).contiguous()  # (S,H,W,C)
        if fill == "reflect":
            images = images[:, _mirrored(self.height, padding)]
            images = images[:, :, _mirrored(self.width, padding)]
        else:
            images = F.pad(images, (0, 0) + (padding,) * 4)
        views = torch.cat([images, images.flip(2)])
        self.pixels = views.view(-1, self.channels)
        # Elsewhere, on MPS for one, the rows, which overlap, might all be copied first: 12 GB.
        self.has_views = images.device.type in ("cpu", "cuda")

    def cut(self, chosen: Tensor, offsets: Tensor, flips: Tensor) -> Tensor:
        """Cut a window out of each of the `chosen` images and mirror the marked ones.

        Shapes: chosen (N,) int64; offsets (N,2) int64, top and left in 0..2*padding; flips (N,)
        bool; result (N,C,H,W), channels_last.
        """
        padded_height, padded_width = self.height + 2 * self.padding, self.width + 2 * self.padding
        view = chosen + flips * self.count
        top, left = offsets.unbind(1)
        left = torch.where(flips, 2 * self.padding - left, left)
        first = (view * padded_height + top) * padded_width + left
        down = torch.arange(self.height, device=first.device) * padded_width
        windows = self._rows((first[:, None] + down).flatten())
        return windows.view(-1, self.height, self.width, self.channels).permute(0, 3, 1, 2)

    def _rows(self, starts: Tensor) -> Tensor:
        """Return rows of `width` pixels that begin at the pixels `starts`."""
        if not self.has_views:
            return self.pixels[starts[:, None] + torch.arange(self.width, device=starts.device)]
        every = len(self.pixels) - self.width + 1
        shape = (every, self.width * self.channels)
        return self.pixels.as_strided(shape, (self.channels, 1)).index_select(0, starts)


def _mirrored(size: int, padding: int) -> Tensor:
    """Return -padding..size+padding-1 with what lies outside mirrored: -1 is 1, size is size-2."""
    index = torch.arange(-padding, size + padding).abs()
    return size - 1 - (size - 1 - index).abs()


class Preprocess(nn.Module):
    """What stands before every network: uint8 (N,3,H,W) -> float32 (N,3,S,S), S = `image_size`.

    Training, evaluation and every exported model go through this one module. Its output is
    channels_last, as the networks are. With `uses_kernel` it is faster where `image_size` is given,
    as in training; what is measured and exported is always the library's.
    """

    uses_kernel = False
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
        size = image_size or self.image_size
        if image_size and self.uses_kernel and preprocess.takes(images, size):
            return preprocess.preprocess(images, size, self.mean, self.std)
        if images.shape[-2:] != (size, size):
            floats = images.contiguous().float()  # channels_last takes twice as long
            images = F.interpolate(floats, size=(size, size), mode="bilinear", antialias=True)
        floats = images.contiguous(memory_format=torch.channels_last).float()
        # Means and deviations as large as an image: loops over three channels alone are slow.
        mean, std = (
            values.expand_as(floats[:1]).contiguous(memory_format=torch.channels_last)
            for values in (255 * self.mean, 255 * self.std)
        )
        return (floats - mean) / std
