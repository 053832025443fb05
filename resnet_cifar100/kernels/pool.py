"""The highest of 2x2 pixels, in training on a CPU, without a list of where they were.

The library keeps the place of each highest pixel in 64 bits, four times the size of the outputs in
bf16, and fills the gradient with zeros before it writes to those places. pool.cpp looks for the
highest again in the backward pass, and writes each gradient once.
"""

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from resnet_cifar100.kernels.build import in_vectors, load_kernels, pointer, takes_maps


@torch.library.custom_op("resnet_cifar100::max_pool", mutates_args=(), device_types="cpu")
def max_pool(x: Tensor) -> Tensor:
    """(N,C,H,W) -> (N,C,H/2,W/2) in channels_last, halves rounded down.

    Raises:
        ValueError: for what the kernel does not take.
    """
    outputs = _empty_outputs(x)
    _call("pool_forward", x, x, outputs)
    return outputs  # type: ignore[no-any-return]


@max_pool.register_fake
def _empty_outputs(x: Tensor) -> Tensor:
    return torch.empty(
        (*x.shape[:2], *(side // 2 for side in x.shape[2:])),
        dtype=x.dtype,
        device=x.device,
        memory_format=torch.channels_last,
    )


@torch.library.custom_op("resnet_cifar100::max_pool_gradient", mutates_args=(), device_types="cpu")
def gradient_of_inputs(x: Tensor, gradient: Tensor) -> Tensor:
    """Inputs (N,C,H,W) and the gradient of the outputs (N,C,H/2,W/2) -> that of the inputs.

    The first of several highest pixels gets it.

    Raises:
        ValueError: for what the kernel does not take.
    """
    if gradient.dtype != x.dtype or gradient.shape != _empty_outputs(x).shape:
        raise ValueError(f"gradients {tuple(gradient.shape)} do not fit {tuple(x.shape)}")
    of_x = _empty_gradient(x, gradient)
    _call("pool_backward", x, x, gradient, of_x)
    return of_x  # type: ignore[no-any-return]


@gradient_of_inputs.register_fake
def _empty_gradient(x: Tensor, gradient: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.channels_last)


def _call(function: str, x: Tensor, *maps: Tensor) -> None:
    images, channels, height, width = x.shape
    is_large = min(images, height // 2, width // 2) > 0
    if not (takes_maps(x) and in_vectors(channels) and is_large):
        raise ValueError(f"no kernel of {x.dtype} for {tuple(x.shape)}")
    maps = tuple(one.contiguous(memory_format=torch.channels_last) for one in maps)
    is_bf16 = int(x.dtype == torch.bfloat16)
    sizes = (images, height, width, channels)
    getattr(load_kernels(), function)(*map(pointer, maps), *sizes, is_bf16)


def _keep_for_backward(ctx: FunctionCtx, inputs: tuple[Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: FunctionCtx, gradient: Tensor) -> Tensor:
    (x,) = ctx.saved_tensors  # type: ignore[attr-defined]
    return gradient_of_inputs(x, gradient)  # type: ignore[no-any-return]


max_pool.register_autograd(_backward, setup_context=_keep_for_backward)
