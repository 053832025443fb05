"""A 3x3 convolution that trains fast on maps of at most 3x3 pixels.

There a CPU library's convolution spends most of its products on padding, or runs far below the rate
of a matrix product. This one is matrix products only, and computes the same sums up to rounding:

1x1, 2x2    one product with the dense matrix that maps all input pixels to all output pixels
3x3         25 products of channels instead of 81, by a bilinear algorithm (Winograd 1980; Lavin and
            Gray 2015, https://arxiv.org/abs/1509.09308) modulo t^4 - 1, see `CYCLIC`

With t^4 - 1 all factors are of size 1, so that bf16 loses least: the product of two polynomials of
degree 2 has the coefficients c0 to c4, a convolution with padding wants c1, c2 and c3, and modulo
t^4 - 1 only c0 and c4 fall together.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from resnet_cifar100.models.layers import FastConv2d

# Rows: the values at 1 and -1; the real and imaginary part of the value at i, and their sum.
CYCLIC = ((1.0, 1.0, 1.0), (1.0, -1.0, 1.0), (1.0, 0.0, -1.0), (0.0, 1.0, 0.0), (1.0, 1.0, -1.0))
# Rows: c1, c2, c3 from the five products of such values.
CYCLIC_INVERSE = (
    (0.25, -0.25, -0.5, -0.5, 0.5),
    (0.25, 0.25, -0.5, 0.5, 0.0),
    (0.25, -0.25, 0.5, 0.5, -0.5),
)


class SmallMapConv2d(FastConv2d):
    """3x3, stride 1, padding 1, no bias; as its base but for the speed on maps so small."""

    cyclic: Tensor
    cyclic_inverse: Tensor

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, kernel=3, padding=1)
        for name, matrix in (("cyclic", CYCLIC), ("cyclic_inverse", CYCLIC_INVERSE)):
            both_ways = np.kron(matrix, matrix)  # at once: rows and columns of the map
            self.register_buffer(name, torch.tensor(both_ways, dtype=torch.float32), False)

    def forward(self, x: Tensor) -> Tensor:
        """(N,C,S,S) -> (N,D,S,S); in evaluation, on a GPU and on larger maps, its base's."""
        side = x.shape[-1]
        if not self.training or side > 3 or x.device.type != "cpu":
            return super().forward(x)
        multiply = self._multiply_cyclic if side == 3 else self._multiply_dense
        pixels = x.permute(0, 2, 3, 1).flatten(1, 2)  # (N,H*W,C), a view of channels_last
        y: Tensor = multiply(pixels).unflatten(1, (side, side))
        return y.permute(0, 3, 1, 2)

    def _multiply_dense(self, pixels: Tensor) -> Tensor:
        """(N,P,C) -> (N,P,D), P = 1 or 4 pixels of a square."""
        _, count, channels = pixels.shape
        weight = self.weight.to(pixels.dtype)
        if count == 1:
            return pixels @ weight[:, :, 1, 1].T
        place = torch.arange(round(count**0.5), device=pixels.device)
        # The tap between two pixels, by rows and columns: 1 in the middle, 0 and 2 beside it.
        step = place[:, None] - place + 1  # (from, to)
        tap = 3 * step[:, None, :, None] + step[None, :, None, :]  # (from y, from x, to y, to x)
        # Chosen by a product with ones and zeros: the gradient of an index would be far slower.
        chosen = F.one_hot(tap.flatten(), 9).to(pixels.dtype)  # (from*to,9)
        taps = weight.permute(2, 3, 1, 0).reshape(9, -1)  # (9,C*D)
        matrix = (chosen @ taps).view(count, count, channels, -1).transpose(1, 2)  # (from,C,to,D)
        products = pixels.flatten(1) @ matrix.reshape(count * channels, -1)
        y: Tensor = products.unflatten(1, (count, -1))
        return y

    def _multiply_cyclic(self, pixels: Tensor) -> Tensor:
        """(N,9,C) -> (N,9,D), for 3x3 pixels."""
        cyclic, inverse = self.cyclic.to(pixels.dtype), self.cyclic_inverse.to(pixels.dtype)
        points = (cyclic @ pixels).transpose(0, 1)  # (25,N,C)
        taps = self.weight.flip(2, 3).permute(2, 3, 1, 0)  # flipped: a product runs the other way
        filters = cyclic @ taps.reshape(9, -1).to(pixels.dtype)
        products = points @ filters.view(25, self.in_channels, self.out_channels)
        y: Tensor = inverse @ products.transpose(0, 1)
        return y
