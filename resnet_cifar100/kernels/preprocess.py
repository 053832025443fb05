"""What stands before a network, from bytes to floats at once, in training on a CPU.

The library resizes each channel by itself, and normalises in three more passes over a batch.
preprocess.cpp does all of it to one image after the other, while it is in the cache.
"""

import ctypes
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from resnet_cifar100.kernels.build import load_kernels, pointer

CHANNELS, TAPS = 3, 4  # as in preprocess.cpp


def takes(images: Tensor, image_size: int) -> bool:
    """Whether the kernel makes (N,C,S,S) of `images`, (N,C,H,W): not if S is below half of H or W.

    A new pixel then depends on more than 4x4.
    """
    is_bytes = images.device.type == "cpu" and images.dtype == torch.uint8
    sides = images.shape[2:]
    fits = min(sides) >= TAPS and max(sides) <= 2 * image_size
    return is_bytes and images.shape[1] == CHANNELS and fits


def preprocess(images: Tensor, image_size: int, mean: Tensor, std: Tensor) -> Tensor:
    """uint8 (N,3,H,W) -> float32 (N,3,S,S), resized (antialiased bilinear), then normalised.

    The result is channels_last. Mean and deviation of the channels, of three numbers each, are
    those of pixels from 0 to 1.

    Raises:
        ValueError: for what the kernel does not take.
    """
    if not takes(images, image_size):
        raise ValueError(f"no kernel from {images.dtype} {tuple(images.shape)} to {image_size}")
    count, _, height, width = images.shape
    images = images.contiguous(memory_format=torch.channels_last)
    outputs = torch.empty(
        (count, CHANNELS, image_size, image_size), memory_format=torch.channels_last
    )
    scale, shift = 1 / (255 * std.flatten()), -(mean / std).flatten()
    maps = (pointer(images), pointer(outputs), ctypes.c_long(count), height, width)
    normal = (pointer(scale), pointer(shift))
    if height == width == image_size:
        load_kernels().normalise(*maps, *normal)
    else:
        taps = (*_taps(height, image_size), *_taps(width, image_size))
        load_kernels().resize_and_normalise(*maps, image_size, *map(pointer, taps), *normal)
    return outputs


@cache
def _taps(pixels: int, side: int) -> tuple[Tensor, Tensor]:
    """Return what `side` new pixels are sums of: the first for each, and the shares from there on.

    Shapes: (S,) int32 and (S,4) float32. They are read off the library's resize of single pixels.
    """
    single = torch.eye(pixels)[None, None]
    resized = F.interpolate(single, size=(pixels, side), mode="bilinear", antialias=True)
    shares = resized[0, 0].T  # (S,P)
    first = (shares > 0).int().argmax(1).clamp(max=pixels - TAPS)
    return first.int(), shares.gather(1, first[:, None] + torch.arange(TAPS)).contiguous()
