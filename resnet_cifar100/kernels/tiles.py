"""Convolutions in bf16 on a CPU with matrix tiles (Intel's AMX), with a faster gradient.

There PyTorch's library takes up to nine times as long for the gradient of the filters as for the
outputs, though both are as many products (docs/log.md). tiles.cpp computes it with tiles of its
own, and keeps it in fp32; outputs and the gradient of the inputs are the library's.
"""

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from resnet_cifar100.kernels.build import load_kernels, pointer
from resnet_cifar100.kernels.convolution import (
    check_gradient,
    empty_filters,
    empty_outputs,
    keep_for_backward,
)

SIDE = 32  # channels in a group of tiles
MIN_CHANNELS = 64  # of inputs: for fewer, bringing them into the order of tiles costs too much
MIN_PIXELS = 1024  # of the inputs of a batch


def takes_channels(in_channels: int, out_channels: int) -> bool:
    """Whether this machine has tiles, and they are of use for filters of so many channels."""
    fits = in_channels % SIDE == 0 == out_channels % SIDE and in_channels >= MIN_CHANNELS
    return fits and bool(load_kernels().has_tiles())


def is_faster(x: Tensor) -> bool:
    """Whether a convolution of `x`, (N,C,H,W), gains by it in its backward pass."""
    is_large = x.numel() >= MIN_PIXELS * x.shape[1]
    return is_large and x.dtype == torch.bfloat16 and x.device.type == "cpu"


@torch.library.custom_op("resnet_cifar100::tiles_convolve", mutates_args=(), device_types="cpu")
def convolve(x: Tensor, weight: Tensor, padding: int) -> Tensor:
    """(N,C,H,W) in bf16 with filters (K,C,F,F) in fp32 -> (N,K,H',W') in bf16; stride 1."""
    x = x.contiguous(memory_format=torch.channels_last)
    return torch.conv2d(x, weight.bfloat16(), padding=padding)


convolve.register_fake(empty_outputs)


@torch.library.custom_op(
    "resnet_cifar100::tiles_weight_gradient", mutates_args=(), device_types="cpu"
)
def weight_gradient(x: Tensor, gradient: Tensor, padding: int, kernel: int) -> Tensor:
    """Inputs (N,C,H,W) and the gradient of the outputs (N,K,H',W'), bf16 -> that of (K,C,F,F).

    Raises:
        ValueError: for what the kernel does not take.
    """
    check_gradient(x, gradient, padding, kernel)
    images, channels, height, width = x.shape
    is_bf16 = all(tensor.dtype == torch.bfloat16 for tensor in (x, gradient))
    fits = channels % SIDE == 0 == gradient.shape[1] % SIDE and 0 <= padding < kernel
    if not is_bf16 or not fits or min(*x.shape, *gradient.shape) < 1:
        raise ValueError(f"no kernel of {x.dtype} for {tuple(x.shape)}, filters of {kernel}")
    if not load_kernels().has_tiles():
        raise ValueError("this processor has no matrix tiles")
    x = x.contiguous(memory_format=torch.channels_last)
    gradient = gradient.contiguous(memory_format=torch.channels_last)
    filters = empty_filters(x, gradient, padding, kernel)
    sizes = (images, height, width, channels, gradient.shape[1], padding, kernel)
    load_kernels().tiles_weight_gradient(*map(pointer, (x, gradient, filters)), *sizes)
    return filters


weight_gradient.register_fake(empty_filters)


def _backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
    x, weight = ctx.saved_tensors  # type: ignore[attr-defined]
    needs_x, needs_weight, _ = ctx.needs_input_grad  # type: ignore[attr-defined]
    padding, kernel = ctx.padding, weight.shape[2]  # type: ignore[attr-defined]
    of_x = of_weight = None
    if needs_x:
        of_x, _, _ = torch.ops.aten.convolution_backward(
            *(gradient, x, weight.bfloat16(), None),
            *([1, 1], [padding, padding], [1, 1], False, [0, 0], 1, [True, False, False]),
        )
    if needs_weight:
        of_weight = weight_gradient(x, gradient, padding, kernel)
    return of_x, of_weight, None


convolve.register_autograd(_backward, setup_context=keep_for_backward)
