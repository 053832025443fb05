"""A 3x3 convolution that trains fast on maps of at most 3x3 pixels.

There a library's convolution spends most of its products on padding, or runs far below the rate of
a matrix product. This one is matrix products only, and computes the same sums up to rounding:

1x1, 2x2    one product with the dense matrix that maps all input pixels to all output pixels
3x3         25 products of channels instead of 81, by a bilinear algorithm (Winograd 1980; Lavin and
            Gray 2015, https://arxiv.org/abs/1509.09308) modulo t^4 - 1, see `CYCLIC`

With t^4 - 1 all factors are of size 1, so that it bears bf16, which the usual points 0, 1, -1, 2 do
not: the product of two polynomials of degree 2 has the coefficients c0 to c4, a convolution with
padding wants c1, c2 and c3, and modulo t^4 - 1 only c0 and c4 fall together.
"""

import torch
from torch import Tensor, nn

# Rows: the values at 1 and -1; the real and imaginary part of the value at i, and their sum.
CYCLIC = ((1.0, 1.0, 1.0), (1.0, -1.0, 1.0), (1.0, 0.0, -1.0), (0.0, 1.0, 0.0), (1.0, 1.0, -1.0))
# Rows: c1, c2, c3 from the five products of such values.
CYCLIC_INVERSE = (
    (0.25, -0.25, -0.5, -0.5, 0.5),
    (0.25, 0.25, -0.5, 0.5, 0.0),
    (0.25, -0.25, 0.5, 0.5, -0.5),
)


class SmallMapConv2d(nn.Conv2d):
    """3x3, stride 1, padding 1, no bias; as nn.Conv2d but for its speed in training."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N,C,H,W) -> (N,D,H,W); in evaluation, and on larger maps, the library's convolution."""
        side = x.shape[-1]
        if not self.training or side > 3:
            return super().forward(x)
        multiply = _multiply_cyclic if side == 3 else _multiply_dense
        pixels = x.permute(0, 2, 3, 1).flatten(1, 2)  # (N,H*W,C), a view of channels_last
        y: Tensor = multiply(pixels, self.weight).unflatten(1, (side, side))
        return y.permute(0, 3, 1, 2)


def _multiply_dense(pixels: Tensor, filters: Tensor) -> Tensor:
    """(N,P,C) with filters (D,C,3,3) -> (N,P,D), P = 1 or 4 pixels of a square."""
    _, count, channels = pixels.shape
    side = round(count**0.5)
    # The tap between two pixels, by rows and columns: 1 in the middle, 0 and 2 beside it.
    step = torch.arange(side)[:, None] - torch.arange(side) + 1  # (from, to)
    tap = 3 * step[:, None, :, None] + step[None, :, None, :]  # (from y, from x, to y, to x)
    taps = filters.permute(2, 3, 1, 0).flatten(0, 1)  # (9,C,D)
    matrix = taps[tap.reshape(count, count).to(taps.device)]  # (from,to,C,D)
    matrix = matrix.transpose(1, 2).reshape(count * channels, -1)
    y: Tensor = (pixels.flatten(1) @ matrix).unflatten(1, (count, -1))
    return y


def _multiply_cyclic(pixels: Tensor, filters: Tensor) -> Tensor:
    """(N,9,C) with filters (D,C,3,3) -> (N,9,D), for 3x3 pixels."""
    forward = torch.tensor(CYCLIC, dtype=pixels.dtype, device=pixels.device)
    inverse = torch.tensor(CYCLIC_INVERSE, dtype=pixels.dtype, device=pixels.device)
    forward, inverse = torch.kron(forward, forward), torch.kron(inverse, inverse)
    out_channels, channels = filters.shape[:2]
    taps = filters.flip(2, 3).permute(2, 3, 1, 0).reshape(9, -1)  # a product runs the other way
    points = (forward @ pixels).transpose(0, 1)  # (25,N,C)
    products = points @ (forward @ taps.to(pixels.dtype)).view(25, channels, out_channels)
    return inverse @ products.transpose(0, 1)
