"""Convolutions on a CPU with as little as a quarter of the products.

Training is bound by the products of its convolutions. Those of a 3x3 filter for 4x4 pixels take 36
for each pair of channels instead of 144 by Winograd's algorithm (Lavin and Gray 2015,
https://arxiv.org/abs/1509.09308), those for 3x3 pixels 25 instead of 81, those of a 2x2 filter 25
instead of 64 and 16 instead of 36. Transforms that go through memory cost as much as they save, so
winograd.cpp keeps them in the processor's caches.

In fp32 these are the same sums up to rounding. In bf16, for processors that multiply pairs of such
numbers (AVX512-BF16), what is multiplied is rounded after the transforms, and an output is off by
1% instead of the library's 0.2%: little beside the noise of a batch's gradient (docs/log.md).
"""

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from resnet_cifar100.kernels.build import load_kernels, pointer, takes_maps
from resnet_cifar100.kernels.convolution import (
    check_gradient,
    empty_filters,
    empty_outputs,
    keep_for_backward,
    output_size,
)

TILES = (4, 3)  # sides of the tiles that the kernel knows, for filters of 2x2 and 3x3
GROUP = 8  # channels, taken together: a vector of AVX2, half of one of AVX-512
MIN_CHANNELS = 16  # for fewer, most products would be of zeros
MIN_SIDE = 3  # pixels of a map of outputs; a smaller one is mostly the padding of its tile
MIN_TILES = 32  # in a batch; for fewer, transforming the filters costs too much


def takes_channels(in_channels: int, out_channels: int, dtype: torch.dtype) -> bool:
    """Whether filters of so many channels gain by it in that precision on this machine."""
    kernels = load_kernels()
    # Matrix tiles (AMX) multiply faster than pairs of numbers; with them it has not been tried.
    has_tiles = kernels.has_tiles() or torch.cpu._is_amx_tile_supported()  # an old g++ knows none
    if dtype == torch.bfloat16 and (not kernels.has_pairs() or has_tiles):
        return False
    return min(in_channels, out_channels) >= MIN_CHANNELS and _fits(in_channels, out_channels)


def is_faster(x: Tensor, kernel: int, padding: int) -> bool:
    """Whether a convolution of `x`, (N,C,H,W), gains by it; where not, it is the library's."""
    height, width = output_size(x, kernel, padding)
    is_large = min(height, width) >= MIN_SIDE and len(x) * _tiles(height, width, 4) >= MIN_TILES
    return is_large and takes_maps(x)


@torch.library.custom_op("resnet_cifar100::winograd_convolve", mutates_args=(), device_types="cpu")
def convolve(x: Tensor, weight: Tensor, padding: int) -> Tensor:
    """(N,C,H,W) with filters (K,C,F,F) -> (N,K,H',W') in channels_last; stride 1, F = 2 or 3.

    Maps are in fp32 or bf16, filters in fp32.

    Raises:
        ValueError: for what the kernel does not take.
    """
    return _convolve(x, weight.permute(2, 3, 1, 0), padding, are_turned=False)


convolve.register_fake(empty_outputs)


@torch.library.custom_op(
    "resnet_cifar100::winograd_input_gradient", mutates_args=(), device_types="cpu"
)
def input_gradient(gradient: Tensor, weight: Tensor, padding: int) -> Tensor:
    """Gradient of the outputs (N,K,H',W') with filters (K,C,F,F) -> that of the inputs (N,C,H,W).

    A convolution too: with the filters turned around.

    Raises:
        ValueError: for what the kernel does not take.
    """
    padding = weight.shape[2] - 1 - padding
    return _convolve(gradient, weight.permute(2, 3, 0, 1), padding, are_turned=True)


@input_gradient.register_fake
def _(gradient: Tensor, weight: Tensor, padding: int) -> Tensor:
    return empty_outputs(gradient, weight.transpose(0, 1), weight.shape[2] - 1 - padding)


@torch.library.custom_op(
    "resnet_cifar100::winograd_weight_gradient", mutates_args=(), device_types="cpu"
)
def weight_gradient(x: Tensor, gradient: Tensor, padding: int, kernel: int) -> Tensor:
    """Inputs (N,C,H,W) and the gradient of the outputs (N,K,H',W') -> that of (K,C,F,F), in fp32.

    Raises:
        ValueError: for what the kernel does not take.
    """
    check_gradient(x, gradient, padding, kernel)
    x = x.contiguous(memory_format=torch.channels_last)
    gradient = gradient.contiguous(memory_format=torch.channels_last)
    filters = empty_filters(x, gradient, padding, kernel)
    taps = filters.permute(2, 3, 1, 0)
    _call("winograd_weight_gradient", (x, gradient, taps), taps, gradient, padding)
    return filters


weight_gradient.register_fake(empty_filters)


def _convolve(x: Tensor, filters: Tensor, padding: int, are_turned: bool) -> Tensor:
    """(N,C,H,W) with filters (F,F,C,K), from their last tap to the first if `are_turned`."""
    if x.shape[1] != filters.shape[2]:
        raise ValueError(f"filters {tuple(filters.shape)} do not fit {tuple(x.shape)}")
    x, filters = x.contiguous(memory_format=torch.channels_last), filters.contiguous()
    outputs = empty_outputs(x, filters.permute(3, 2, 0, 1), padding)
    _call("winograd_convolve", (x, filters, outputs), filters, outputs, padding, are_turned)
    return outputs


def _call(
    function: str,
    tensors: tuple[Tensor, Tensor, Tensor],
    filters: Tensor,
    outputs: Tensor,
    padding: int,
    *options: bool,
) -> None:
    x, kernel = tensors[0], filters.shape[0]  # (F,F,C,K)
    images, channels, height, width = x.shape
    has_sizes = kernel in (2, 3) and _fits(channels, outputs.shape[1]) and min(outputs.shape) >= 1
    has_types = takes_maps(x) and outputs.dtype == x.dtype and filters.dtype == torch.float32
    if not has_sizes or not has_types:
        raise ValueError(f"no kernel of {x.dtype} for {tuple(x.shape)}, filters of {kernel}")
    tile = best_tile(outputs.shape[2], outputs.shape[3], kernel)
    sizes = (images, height, width, channels, outputs.shape[1])
    numbers = (*sizes, padding, tile, kernel, x.element_size())
    getattr(load_kernels(), function)(*map(pointer, tensors), *numbers, *options)


def _fits(*channels: int) -> bool:
    return all(count % GROUP == 0 for count in channels)


def best_tile(height: int, width: int, kernel: int) -> int:
    """Return the side of the tiles that take the fewest products for outputs of that size."""
    return min(TILES, key=lambda side: _tiles(height, width, side) * (side + kernel - 1) ** 2)


def _tiles(height: int, width: int, side: int) -> int:
    return -(-height // side) * -(-width // side)


def _backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
    x, weight = ctx.saved_tensors  # type: ignore[attr-defined]
    needs_x, needs_weight, _ = ctx.needs_input_grad  # type: ignore[attr-defined]
    padding, kernel = ctx.padding, weight.shape[2]  # type: ignore[attr-defined]
    of_x = of_weight = None
    if needs_x:
        of_x = input_gradient(gradient, weight, padding)
    if needs_weight:
        of_weight = weight_gradient(x, gradient, padding, kernel)
    return of_x, of_weight, None


convolve.register_autograd(_backward, setup_context=keep_for_backward)
