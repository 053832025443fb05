"""A small residual network made to learn CIFAR in the fewest operations.

The shape is that of the CIFAR-100 speedrun entry NAVIER-STOKED
(https://github.com/AIDDA-Institute/CIFAR-100-speedrun), a descendant of airbench (Jordan 2024,
https://arxiv.org/abs/2404.00498) and of David Page's ResNet-9 before it: a whitening stem, three
groups that pool early, and most of the work on 7x7 and 3x3 maps, where a processor does it best.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resnet_cifar100.models.layers import FastBatchNorm2d, FastConv2d, normalise, pool_and_normalise
from resnet_cifar100.models.small_map import SmallMapConv2d

STEM_WIDTH = 24  # 12 directions of a 2x2 patch of 3 channels, and their opposites
MIN_IMAGE_SIZE = 16  # 15 -> 7 -> 3 -> 1
LOGIT_SCALE = 1.25 / 9  # the entry's, as is a head of the maximum and the mean


class PooledGroup(nn.Module):
    """conv-pool-BN-SiLU, which halves the map, then one residual pair of convolutions.

    (N,C,H,W) -> (N,D,H/2,W/2), halves rounded down. `kernels` are the sides of the three filters;
    where the first is 2, its convolution takes a pixel off H and W before they are halved. SiLU:
    Elfwing et al. 2017, https://arxiv.org/abs/1702.03118.
    """

    def __init__(
        self, in_channels: int, channels: int, inner_channels: int, kernels: tuple[int, int, int]
    ) -> None:
        super().__init__()
        self.conv1 = _conv(in_channels, channels, kernels[0])
        self.norm1 = FastBatchNorm2d(channels)
        self.conv2 = _conv(channels, inner_channels, kernels[1])
        self.norm2 = FastBatchNorm2d(inner_channels)
        self.conv3 = _conv(inner_channels, channels, kernels[2])
        self.norm3 = FastBatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return the features at half the size."""
        x = pool_and_normalise(self.norm1, self.conv1(x), "silu")
        residual = normalise(self.norm2, self.conv2(x), "silu")
        return x + normalise(self.norm3, self.conv3(residual), "silu")


class SpeedNet(nn.Module):
    """Whitening stem, three pooled groups, global maximum plus mean, one linear layer."""

    def __init__(
        self,
        *,
        widths: tuple[int, int, int],
        inner_widths: tuple[int, int, int],
        num_classes: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, STEM_WIDTH, 2)
        self.stem.weight.requires_grad_(False)
        kernels = ((3, 1, 1), (3, 3, 1), (2, 3, 3))
        in_widths = (STEM_WIDTH, *widths)
        self.stages = nn.Sequential(*map(PooledGroup, in_widths[:3], widths, inner_widths, kernels))
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(widths[-1], num_classes, bias=False)

    @torch.no_grad()
    def whiten(self, images: Tensor) -> None:
        """Fix the filters of the stem to whiten 2x2 patches of `images`, (N,3,H,W) normalised.

        Each principal direction of the patches is scaled to unit variance and enters with both
        signs (Jordan 2024, section 3.2, https://arxiv.org/abs/2404.00498).
        """
        patches = F.unfold(images, 2)  # (N,12,L)
        # The rest on the CPU: Apple's GPUs have no float64.
        mean = patches.mean(dim=(0, 2)).cpu().double()
        square = (patches @ patches.mT).cpu().double().sum(dim=0) / (len(images) * patches.shape[2])
        variances, directions = torch.linalg.eigh(square - mean.outer(mean))
        filters = (directions / (variances + 5e-4).sqrt()).T.reshape(12, 3, 2, 2)
        self.stem.weight.copy_(torch.cat([filters, -filters]))
        self.stem.bias.zero_()  # type: ignore[union-attr]

    def forward_features(self, images: Tensor) -> Tensor:
        """Return the pooled features: (N,3,H,W) normalised images -> (N,D)."""
        x: Tensor = self.stages(F.silu(self.stem(images)))
        # Not amax: its gradient looks for the maximum among the pixels. Where torch.compile rounds
        # only one of them to bf16, it may find none, and is NaN.
        highest = F.max_pool2d(x, x.shape[-2:]).flatten(1)  # (N,D,H,W) -> (N,D)
        return highest + x.mean(dim=(2, 3))

    def forward_head(self, features: Tensor) -> Tensor:
        """Return the logits: (N,D) -> (N,K)."""
        logits: Tensor = self.head(self.dropout(features))
        return logits * LOGIT_SCALE

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits: (N,3,H,W) normalised images -> (N,K)."""
        return self.forward_head(self.forward_features(images))


def _conv(in_channels: int, out_channels: int, kernel: int) -> nn.Conv2d:
    """Return a convolution without bias that begins by passing its input through.

    The first filters are deltas, as in airbench (after Zagoruyko and Komodakis 2017,
    https://arxiv.org/abs/1706.00388); the others keep torch's own initialisation. Kernels of 1 and
    3 keep the size of the map, one of 2 takes a pixel off.
    """
    if kernel == 3:
        conv: nn.Conv2d = SmallMapConv2d(in_channels, out_channels)
    elif kernel == 2:
        conv = FastConv2d(in_channels, out_channels, kernel=2, padding=0)
    else:
        conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
    nn.init.dirac_(conv.weight[:in_channels].data)
    return conv
