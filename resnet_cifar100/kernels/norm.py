"""Batch normalisation and what follows it at once, in training on a CPU.

Both are bound by memory, so what counts is how often a map is read and written. The library's norm
and activation, and their gradients, read it ten times and write it four times; norm.cpp reads it
six times and writes it twice, for the activation's gradient follows from the norm's inputs.
"""

import ctypes

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from resnet_cifar100.kernels.build import lanes, load_kernels, pointer

ACTIVATIONS = ("identity", "relu", "silu")  # as norm.cpp numbers them
DTYPES = (torch.float32, torch.bfloat16)


def takes_channels(channels: int) -> bool:
    """Whether the kernel can normalise so many channels: whole vectors of them."""
    return channels % lanes() == 0


def takes(x: Tensor) -> bool:
    """Whether the kernel can normalise maps such as `x`, (N,C,H,W), but for their channels."""
    has_variance = x.numel() > x.shape[1]  # with one pixel the library says what is wrong
    return x.device.type == "cpu" and x.dtype in DTYPES and has_variance


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
    _call("norm_forward", (x, weight, bias, outputs, mean, variance), x, eps, activation)
    return outputs, mean, variance


@normalise.register_fake
def _empty_outputs(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float, activation: str
) -> tuple[Tensor, Tensor, Tensor]:
    outputs = torch.empty_like(x, memory_format=torch.channels_last)
    return outputs, torch.empty_like(weight), torch.empty_like(weight)


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
    found = _empty_gradients(x, gradient, weight, bias, mean, variance, eps, activation)
    _call(
        "norm_backward",
        (x, gradient, weight, bias, mean, variance, *found),
        x,
        eps,
        activation,
    )
    return found  # type: ignore[no-any-return]


@gradients.register_fake
def _empty_gradients(
    x: Tensor,
    gradient: Tensor,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    variance: Tensor,
    eps: float,
    activation: str,
) -> tuple[Tensor, Tensor, Tensor]:
    of_x = torch.empty_like(x, memory_format=torch.channels_last)
    return of_x, torch.empty_like(weight), torch.empty_like(bias)


def _call(
    function: str, tensors: tuple[Tensor, ...], x: Tensor, eps: float, activation: str
) -> None:
    channels = x.shape[1]
    of_channels = [tensor for tensor in tensors if tensor.ndim == 1]
    fits = all(len(one) == channels and one.dtype == torch.float32 for one in of_channels)
    if not (x.ndim == 4 and takes(x) and takes_channels(channels) and fits):
        raise ValueError(f"no kernel of {x.dtype} for {tuple(x.shape)}")
    number, is_bf16 = ACTIVATIONS.index(activation), x.dtype == torch.bfloat16
    sizes = (ctypes.c_long(x.numel() // channels), ctypes.c_long(channels))
    pointers = map(pointer, tensors)
    getattr(load_kernels(), function)(*pointers, ctypes.c_float(eps), *sizes, number, int(is_bf16))


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
