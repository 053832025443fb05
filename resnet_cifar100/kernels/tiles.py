"""Convolutions in bf16 on a CPU with matrix tiles (Intel's AMX), with a faster gradient.

There PyTorch's library takes two to nine times as long for the gradient of the filters as for the
outputs, though both are as many products (docs/log.md). tiles.cpp computes it with tiles of its
own, and keeps it in fp32; outputs and the gradient of the inputs are the library's.
"""

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from resnet_cifar100.kernels.build import load_kernels, pointer

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


@convolve.register_fake
def _empty_outputs(x: Tensor, weight: Tensor, padding: int) -> Tensor:
    growth = 2 * padding - weight.shape[2] + 1
    shape = (len(x), len(weight), x.shape[2] + growth, x.shape[3] + growth)
    return x.new_empty(shape).contiguous(memory_format=torch.channels_last)


@torch.library.custom_op(
    "resnet_cifar100::tiles_weight_gradient", mutates_args=(), device_types="cpu"
)
def weight_gradient(x: Tensor, gradient: Tensor, padding: int, kernel: int) -> Tensor:
    """Inputs (N,C,H,W) and the gradient of the outputs (N,K,H',W'), bf16 -> that of (K,C,F,F).

    Raises:
        ValueError: for what the kernel does not take.
    """
    images, channels, height, width = x.shape
    growth = 2 * padding - kernel + 1
    if (images, height + growth, width + growth) != (len(gradient), *gradient.shape[2:]):
        raise ValueError(f"gradients {tuple(gradient.shape)} do not fit {tuple(x.shape)}")
    is_bf16 = all(tensor.dtype == torch.bfloat16 for tensor in (x, gradient))
    fits = channels % SIDE == 0 == gradient.shape[1] % SIDE and 0 <= padding < kernel
    if not is_bf16 or not fits or min(*x.shape, *gradient.shape) < 1:
        raise ValueError(f"no kernel of {x.dtype} for {tuple(x.shape)}, filters of {kernel}")
    if not load_kernels().has_tiles():
        raise ValueError("this processor has no matrix tiles")
    x = x.contiguous(memory_format=torch.channels_last)
    gradient = gradient.contiguous(memory_format=torch.channels_last)
    filters = _empty_filters(x, gradient, padding, kernel)
    sizes = (images, height, width, channels, gradient.shape[1], padding, kernel)
    load_kernels().tiles_weight_gradient(*map(pointer, (x, gradient, filters)), *sizes)
    return filters  # type: ignore[no-any-return]


@weight_gradient.register_fake
def _empty_filters(x: Tensor, gradient: Tensor, padding: int, kernel: int) -> Tensor:
    shape = (kernel, kernel, x.shape[1], gradient.shape[1])
    return x.new_empty(shape, dtype=torch.float32).permute(3, 2, 0, 1)


def _keep_for_backward(
    ctx: FunctionCtx, inputs: tuple[Tensor, Tensor, int], output: Tensor
) -> None:
    ctx.save_for_backward(*inputs[:2])
    ctx.padding = inputs[2]  # type: ignore[attr-defined]


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


convolve.register_autograd(_backward, setup_context=_keep_for_backward)
