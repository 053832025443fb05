"""Layers with a switch that makes them faster in training on a CPU.

In evaluation they are the library's: what is measured is the network as others run it. Only a
teacher's convolutions are fast in evaluation too.
"""

from typing import TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resnet_cifar100.kernels import norm, pool, tiles, winograd
from resnet_cifar100.kernels.build import in_vectors


class FastConv2d(nn.Conv2d):
    """2x2 or 3x3, stride 1, no bias; the library's, but in training after `use_kernels`."""

    uses_winograd = False
    uses_tiles = False
    is_teachers = False

    def __init__(self, in_channels: int, out_channels: int, kernel: int, padding: int) -> None:
        super().__init__(in_channels, out_channels, kernel, padding=padding, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N,C,H,W) -> (N,K,H',W')."""
        kernel, padding = self.weight.shape[2], int(self.padding[0])
        is_on = self.training or self.is_teachers
        if is_on and self.uses_winograd and winograd.is_faster(x, kernel, padding):
            return winograd.convolve(x, self.weight, padding)  # type: ignore[no-any-return]
        if is_on and self.uses_tiles and tiles.is_faster(x):
            return tiles.convolve(x, self.weight, padding)  # type: ignore[no-any-return]
        return super().forward(x)


class FastBatchNorm2d(nn.BatchNorm2d):
    """The library's, but in training after `use_kernels`; see `normalise` for what follows it."""

    uses_kernel = False
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    momentum: float

    def __init__(self, channels: int) -> None:
        super().__init__(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N,C,H,W) -> (N,C,H,W)."""
        return self.train_with("identity", x) if _is_fast(self, x) else super().forward(x)

    def train_with(self, activation: str, x: Tensor) -> Tensor:
        """Return the activated norm of `x`, (N,C,H,W), and move the running statistics."""
        outputs, mean, variance = norm.normalise(x, self.weight, self.bias, self.eps, activation)
        count = x.numel() / x.shape[1]
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)  # unbiased
        return outputs  # type: ignore[no-any-return]


def normalise(layer: nn.Module, x: Tensor, activation: str) -> Tensor:
    """Return relu or silu of the norm `layer` of `x`, (N,C,H,W); in training, in one kernel."""
    if _is_fast(layer, x):
        return layer.train_with(activation, x)
    return norm.ACTIVATIONS[activation](layer(x))


def pool_and_normalise(layer: nn.Module, x: Tensor, activation: str) -> Tensor:
    """Return the same of the highest of 2x2 pixels of `x`: (N,C,H,W) -> (N,C,H/2,W/2)."""
    pooled = pool.max_pool(x) if _is_fast(layer, x) else F.max_pool2d(x, 2)
    return normalise(layer, pooled, activation)


def _is_fast(layer: nn.Module, x: Tensor) -> TypeGuard[FastBatchNorm2d]:
    is_switched = isinstance(layer, FastBatchNorm2d) and layer.uses_kernel and layer.training
    return is_switched and norm.takes(x)


def use_kernels(model: nn.Module, dtype: torch.dtype, *, is_teacher: bool = False) -> None:
    """Let the layers of `model` train with the kernels of `kernels/` where these are faster.

    `dtype` is the precision in which it is trained; the weights are in fp32. A teacher, who is in
    evaluation, convolves with them.
    """
    for module in model.modules():
        if isinstance(module, FastConv2d):
            module.is_teachers = is_teacher
            channels = (module.in_channels, module.out_channels)
            module.uses_winograd = winograd.takes_channels(*channels, dtype)
            module.uses_tiles = dtype == torch.bfloat16 and tiles.takes_channels(*channels)
        elif isinstance(module, FastBatchNorm2d):
            module.uses_kernel = in_vectors(module.num_features)
