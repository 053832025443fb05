"""Batch normalisation and what follows it at once, in training on a CPU.

Both are bound by memory, so what counts is how often a map is read and written. The library's norm
and activation, and their gradients, read it ten times and write it four times; norm.cpp reads it
six times and writes it twice, for the activation's gradient follows from the norm's inputs.
"""

import ctypes
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx

from resnet_cifar100.kernels.build import in_vectors, load_kernels, pointer, takes_maps

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {  # in the order of norm.cpp's numbers
    "identity": lambda x: x,
    "relu": F.relu,
    "silu": F.silu,
}


def takes(x: Tensor) -> bool:
    """Whether the kernel normalises `x`, (N,C,H,W), in vectors; a single pixel has no variance."""
    return takes_maps(x) and x.numel() > x.shape[1]


@torch.library.custom_op("resnet_cifar100::normalise", mutates_args=(), device_types="cpu")
def normalise(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float, activation: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the activated norm of `x`, (N,C,H,W) in channels_last, and its statistics, (C,) each.

    They are the mean and the biased variance of each channel, in fp32, as are weight and bias.

    Raises:
        ValueError: for what the kernel does not take.
    """
    x = x.contiguous(memory_format=torch.channels_last)
    outputs, mean, variance = _empty_outputs(x, weight, bias, eps, activation)
    _call("norm_forward", [x, outputs], [weight, bias, mean, variance], eps, activation)
    return outputs, mean, variance


@normalise.register_fake
def _empty_outputs(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float, activation: str
) -> tuple[Tensor, Tensor, Tensor]:
    outputs = torch.empty_like(x, memory_format=torch.channels_last)
    mean, variance = (x.new_empty(x.shape[1], dtype=torch.float32) for _ in range(2))
    return outputs, mean, variance


@torch.library.custom_op("resnet_cifar100::norm_gradients", mutates_args=(), device_types="cpu")
def gradients(
    x: Tensor,
    gradient: Tensor,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    variance: Tensor,
    eps: float,
    activation: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of x, weight and bias from that of the outputs, (N,C,H,W).

    Raises:
        ValueError: for what the kernel does not take.
    """
    if gradient.shape != x.shape or gradient.dtype != x.dtype:
        raise ValueError(f"gradients {tuple(gradient.shape)} do not fit {tuple(x.shape)}")
    x = x.contiguous(memory_format=torch.channels_last)
    gradient = gradient.contiguous(memory_format=torch.channels_last)
    of_x, of_weight, of_bias = _empty_gradients(x)
    of_channels = [weight, bias, mean, variance, of_weight, of_bias]
    _call("norm_backward", [x, gradient, of_x], of_channels, eps, activation)
    return of_x, of_weight, of_bias


@gradients.register_fake
def _empty_gradients(x: Tensor, *_: object) -> tuple[Tensor, Tensor, Tensor]:
    of_x = torch.empty_like(x, memory_format=torch.channels_last)
    of_weight, of_bias = (x.new_empty(x.shape[1], dtype=torch.float32) for _ in range(2))
    return of_x, of_weight, of_bias


def _call(
    function: str, maps: list[Tensor], of_channels: list[Tensor], eps: float, activation: str
) -> None:
    """Call it with maps (N,C,H,W), the first the inputs, and values of each channel, (C,)."""
    x = maps[0]
    channels = x.shape[1]
    fits = all(one.shape == (channels,) and one.dtype == torch.float32 for one in of_channels)
    if not (fits and takes(x) and in_vectors(channels)):
        raise ValueError(f"no kernel of {x.dtype} for {tuple(x.shape)}")
    number, is_bf16 = list(ACTIVATIONS).index(activation), int(x.dtype == torch.bfloat16)
    sizes = (ctypes.c_long(x.numel() // channels), ctypes.c_long(channels))
    tensors = [*maps, *(one.contiguous() for one in of_channels)]
    getattr(load_kernels(), function)(
        *map(pointer, tensors), ctypes.c_float(eps), *sizes, number, is_bf16
    )


def _keep_for_backward(
    ctx: FunctionCtx,
    inputs: tuple[Tensor, Tensor, Tensor, float, str],
    output: tuple[Tensor, Tensor, Tensor],
) -> None:
    ctx.save_for_backward(*inputs[:3], *output[1:])
    ctx.options = inputs[3:]  # type: ignore[attr-defined]
    ctx.mark_non_differentiable(*output[1:])


def _backward(
    ctx: FunctionCtx, gradient: Tensor, *_: Tensor
) -> tuple[Tensor, Tensor, Tensor, None, None]:
    x, weight, bias, mean, variance = ctx.saved_tensors  # type: ignore[attr-defined]
    options = ctx.options  # type: ignore[attr-defined]
    return (*gradients(x, gradient, weight, bias, mean, variance, *options), None, None)


normalise.register_autograd(_backward, setup_context=_keep_for_backward)
