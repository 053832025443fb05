"""What the operators of winograd.py and tiles.py share."""

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx


def output_size(x: Tensor, kernel: int, padding: int) -> tuple[int, int]:
    """Return height and width of the convolution of `x`, (N,C,H,W)."""
    growth = 2 * padding - kernel + 1
    return x.shape[2] + growth, x.shape[3] + growth


def empty_outputs(x: Tensor, weight: Tensor, padding: int) -> Tensor:
    """(N,C,H,W) and (K,C,F,F) -> (N,K,H',W') in the precision of x and channels_last."""
    shape = (len(x), len(weight), *output_size(x, weight.shape[2], padding))
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)


def empty_filters(x: Tensor, gradient: Tensor, padding: int, kernel: int) -> Tensor:
    """(N,C,H,W) and (N,K,H',W') -> (K,C,F,F) in fp32, in memory (F,F,C,K)."""
    shape = (kernel, kernel, x.shape[1], gradient.shape[1])
    return x.new_empty(shape, dtype=torch.float32).permute(3, 2, 0, 1)


def check_gradient(x: Tensor, gradient: Tensor, padding: int, kernel: int) -> None:
    """Refuse a gradient of the outputs that is not of the size of the outputs of `x`.

    Raises:
        ValueError: for that.
    """
    if gradient.shape[2:] != output_size(x, kernel, padding) or len(gradient) != len(x):
        raise ValueError(f"gradients {tuple(gradient.shape)} do not fit {tuple(x.shape)}")


def keep_for_backward(ctx: FunctionCtx, inputs: tuple[Tensor, Tensor, int], output: Tensor) -> None:
    """Keep inputs, filters and padding."""
    ctx.save_for_backward(*inputs[:2])
    ctx.padding = inputs[2]  # type: ignore[attr-defined]
