"""One residual network for CIFAR, in both published block orders.

v1, post-activation: Deep Residual Learning for Image Recognition, He et al. 2015,
https://arxiv.org/abs/1512.03385. v2, pre-activation: Identity Mappings in Deep Residual Networks,
He et al. 2016, https://arxiv.org/abs/1603.05027.
"""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resnet_cifar100.models.layers import FastBatchNorm2d, FastConv2d, normalise


def conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    """Return a 3x3 convolution that keeps the size at stride 1; no bias, a norm follows."""
    if stride == 1:
        return FastConv2d(in_channels, out_channels, kernel=3, padding=1)
    return nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)


def conv1x1(in_channels: int, out_channels: int, stride: int) -> nn.Conv2d:
    """Return the projection of a shortcut whose shape changes."""
    return nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)


class SqueezeExcitation(nn.Module):
    """Weigh each channel by a number in 0..1 that follows from the means of all of them.

    Hu et al. 2017, https://arxiv.org/abs/1709.01507, with their reduction to a sixteenth, but to
    four numbers at least.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = max(4, channels // 16)
        self.squeeze = nn.Linear(channels, squeezed)
        self.excite = nn.Linear(squeezed, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N,C,H,W) -> (N,C,H,W)."""
        weights: Tensor = self.excite(F.relu(self.squeeze(x.mean(dim=(2, 3))))).sigmoid()
        return x * weights[:, :, None, None]


class StochasticDepth(nn.Module):
    """Drop the whole residual of a share of the images in training, and scale up the others.

    Huang et al. 2016, https://arxiv.org/abs/1603.09382, drawn for each image by itself.
    """

    def __init__(self, drop_prob: float) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, residual: Tensor) -> Tensor:
        """(N,C,H,W) -> (N,C,H,W)."""
        if not self.training:
            return residual
        draws = torch.rand(len(residual), 1, 1, 1, device=residual.device)  # bf16 is too coarse
        return residual * (draws >= self.drop_prob).to(residual.dtype) / (1 - self.drop_prob)


class BasicBlockV1(nn.Module):
    """conv-BN-ReLU-conv-BN, added to the shortcut, then ReLU."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(in_channels, out_channels, stride)
        self.norm1 = FastBatchNorm2d(out_channels)
        self.conv2 = conv3x3(out_channels, out_channels)
        self.norm2 = FastBatchNorm2d(out_channels)
        self.tail = nn.Sequential()  # what else the residual passes through
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                conv1x1(in_channels, out_channels, stride), FastBatchNorm2d(out_channels)
            )

    def zero_residual(self) -> None:
        """Begin as the shortcut alone: Goyal et al. 2017, https://arxiv.org/abs/1706.02677."""
        nn.init.zeros_(self.norm2.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(N,C,H,W) -> (N,D,H/stride,W/stride)."""
        residual = normalise(self.norm1, self.conv1(x), "relu")
        residual = self.tail(self.norm2(self.conv2(residual)))
        return F.relu(residual + self.shortcut(x))


class BasicBlockV2(nn.Module):
    """BN-ReLU-conv twice, added to the shortcut; a projection takes the pre-activated tensor."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.norm1 = FastBatchNorm2d(in_channels)
        self.conv1 = conv3x3(in_channels, out_channels, stride)
        self.norm2 = FastBatchNorm2d(out_channels)
        self.conv2 = conv3x3(out_channels, out_channels)
        self.tail = nn.Sequential()  # what else the residual passes through
        self.shortcut: nn.Module | None = None
        if stride != 1 or in_channels != out_channels:
            self.shortcut = conv1x1(in_channels, out_channels, stride)

    def zero_residual(self) -> None:
        """Begin as the shortcut alone; with a norm at zero no gradient would pass the ReLU."""
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(N,C,H,W) -> (N,D,H/stride,W/stride)."""
        activated = normalise(self.norm1, x, "relu")
        shortcut = x if self.shortcut is None else self.shortcut(activated)
        residual: Tensor = self.conv2(normalise(self.norm2, self.conv1(activated), "relu"))
        return self.tail(residual) + shortcut  # type: ignore[no-any-return]


class ResNet(nn.Module):
    """Stem, stages of basic blocks, global average pooling, dropout, one fully connected layer.

    `widths`, `depths` and `strides` hold one entry a stage: its channels, its number of blocks, the
    stride of its first block. `stochastic_depth` is that of the last block; it rises from the first
    one in equal steps.
    """

    def __init__(
        self,
        *,
        version: Literal[1, 2],
        stem_width: int,
        widths: Sequence[int],
        depths: Sequence[int],
        strides: Sequence[int],
        num_classes: int,
        dropout: float,
        squeeze_excitation: bool,
        stochastic_depth: float,
        zero_init: bool,
    ) -> None:
        super().__init__()
        kind = BasicBlockV1 if version == 1 else BasicBlockV2
        self.stem: nn.Module = conv3x3(3, stem_width)
        if version == 1:
            self.stem = nn.Sequential(self.stem, FastBatchNorm2d(stem_width), nn.ReLU())
        blocks: list[BasicBlockV1 | BasicBlockV2] = []
        stages = []
        in_channels = stem_width
        for width, depth, stride in zip(widths, depths, strides, strict=True):
            stage: list[BasicBlockV1 | BasicBlockV2] = [kind(in_channels, width, stride)]
            stage += [kind(width, width, 1) for _ in range(depth - 1)]
            blocks += stage
            stages.append(nn.Sequential(*stage))
            in_channels = width
        self.stages = nn.Sequential(*stages)
        # A v2 network ends on a bare sum, so it needs its last BN and ReLU before pooling.
        self.norm = FastBatchNorm2d(in_channels) if version == 2 else nn.Identity()
        self.activation = nn.ReLU() if version == 2 else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(in_channels, num_classes)
        for number, block in enumerate(blocks, start=1):
            if squeeze_excitation:
                block.tail.append(SqueezeExcitation(block.conv2.out_channels))
            if stochastic_depth:
                block.tail.append(StochasticDepth(stochastic_depth * number / len(blocks)))
        self.apply(_init_weights)
        if zero_init:
            for block in blocks:
                block.zero_residual()

    def forward_features(self, images: Tensor) -> Tensor:
        """Return the pooled features: (N,3,H,W) normalised images -> (N,D)."""
        x: Tensor = self.activation(self.norm(self.stages(self.stem(images))))
        return x.mean(dim=(2, 3))  # (N,D,H,W) -> (N,D)

    def forward_head(self, features: Tensor) -> Tensor:
        """Return the logits: (N,D) -> (N,K)."""
        logits: Tensor = self.head(self.dropout(features))
        return logits

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits: (N,3,H,W) normalised images -> (N,K)."""
        return self.forward_head(self.forward_features(images))


def _init_weights(module: nn.Module) -> None:
    """He initialisation of the filters, arXiv:1502.01852; norms and the head keep torch's own."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
