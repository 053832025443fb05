"""Operations on the pixels of whole batches, each as Pillow does it to one picture, on any device.

Images are uint8 (N,3,H,W) and stay so. Geometry and tables are worked out in whole numbers, so that
every device gives the same bits.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

_FIXED_POINT = 1 << 16  # Pillow's: 16 bits after the point


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a CPU tensor on `device`; where that is a GPU, without waiting for its other work."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def affine(images: Tensor, matrices: Tensor) -> Tensor:
    """Move pixels: what lands at (x, y) comes from (ax + by + c, dx + ey + f), or is black.

    `matrices` (N,6) float64 on the CPU hold a to f of each image; pixels are squares of side 1, and
    the nearest one is taken.
    """
    channels, height, width = images.shape[1:]
    a, b, c, d, e, f = matrices.unbind(1)
    middle = torch.stack([a, b, c + a / 2 + b / 2, d, e, f + d / 2 + e / 2])  # of the first pixel
    a, b, c, d, e, f = to_device((middle * _FIXED_POINT + 0.5).floor().long(), images.device)
    y, x = torch.meshgrid(
        torch.arange(height, device=images.device),
        torch.arange(width, device=images.device),
        indexing="ij",
    )

    def source(along_x: Tensor, along_y: Tensor, start: Tensor) -> Tensor:
        first = start[:, None, None]
        return (first + along_x[:, None, None] * x + along_y[:, None, None] * y) >> 16

    from_x, from_y = source(a, b, c), source(d, e, f)  # (N,H,W)
    is_inside = (from_x >= 0) & (from_x < width) & (from_y >= 0) & (from_y < height)
    index = (from_y.clamp(0, height - 1) * width + from_x.clamp(0, width - 1)).flatten(1)
    moved = images.flatten(2).gather(2, index[:, None].expand(-1, channels, -1))
    return moved.view_as(images) * is_inside[:, None]


def rotate(images: Tensor, degrees: Tensor) -> Tensor:
    """Turn each image about its centre, anticlockwise; degrees (N,) on the CPU."""
    height, width = images.shape[2:]
    angles = degrees.double() * (math.pi / 180)
    cos, sin = angles.cos(), angles.sin()
    centre_x, centre_y = width / 2, height / 2
    start_x = centre_x - cos * centre_x - -sin * centre_y
    start_y = centre_y - sin * centre_x - cos * centre_y
    return affine(images, torch.stack([cos, -sin, start_x, sin, cos, start_y], dim=1))


def look_up(images: Tensor, tables: Tensor) -> Tensor:
    """Replace each value by its entry in the table of its image and channel: tables (N,3,256)."""
    return tables.gather(2, images.flatten(2).long()).to(torch.uint8).view(images.shape)


def autocontrast(images: Tensor) -> Tensor:
    """Stretch each channel to 0..255; a channel of one value stays."""
    counts = histogram(images)
    values = torch.arange(256, device=images.device)
    low = (counts > 0).int().argmax(2, keepdim=True)
    high = 255 - (counts > 0).flip(2).int().argmax(2, keepdim=True)
    stretched = ((values - low) * 255).div((high - low).clamp(min=1), rounding_mode="floor")
    tables = torch.where(high > low, stretched.clamp(0, 255), values)
    return look_up(images, tables)


def equalize(images: Tensor) -> Tensor:
    """Spread the values of each channel so that each is about as frequent as any other."""
    counts = histogram(images)
    values = torch.arange(256, device=images.device)
    last = 255 - (counts > 0).flip(2).int().argmax(2, keepdim=True)
    step = (counts.sum(2, keepdim=True) - counts.gather(2, last)) // 255
    before = counts.cumsum(2) - counts
    spread = (before + step // 2).div(step.clamp(min=1), rounding_mode="floor")
    return look_up(images, torch.where(step > 0, spread.clamp(0, 255), values))


def histogram(images: Tensor) -> Tensor:
    """Count the values of each channel: uint8 (N,C,H,W) -> int64 (N,C,256)."""
    values = images.flatten(2).long()
    counts = torch.zeros(*values.shape[:2], 256, dtype=torch.long, device=images.device)
    return counts.scatter_add_(2, values, torch.ones_like(values))


def solarize(images: Tensor, thresholds: Tensor) -> Tensor:
    """Invert the values that are not below the threshold of their image, (N,) on the CPU."""
    limits = to_device(thresholds, images.device).view(-1, 1, 1, 1)
    return torch.where(images < limits, images, 255 - images)


def posterize(images: Tensor, bits: Tensor) -> Tensor:
    """Keep the highest bits of each value alone: `bits` (N,) int64 of them, 1 to 8, on the CPU."""
    masks = to_device((256 - 2 ** (8 - bits)).to(torch.uint8), images.device)
    return images & masks.view(-1, 1, 1, 1)


def brightness(images: Tensor, factors: Tensor) -> Tensor:
    """Blend with black: factors (N,) on the CPU, 0 black and 1 the image, here and below."""
    return _blend(torch.zeros_like(images), images, factors)


def contrast(images: Tensor, factors: Tensor) -> Tensor:
    """Blend with the mean grey of the image."""
    grey = _grey(images)
    pixels = grey[0].numel()
    mean = (2 * grey.sum(dim=(1, 2, 3), keepdim=True) + pixels) // (2 * pixels)
    return _blend(mean.expand(images.shape), images, factors)


def color(images: Tensor, factors: Tensor) -> Tensor:
    """Blend with the image in grey."""
    return _blend(_grey(images).expand(images.shape), images, factors)


def sharpness(images: Tensor, factors: Tensor) -> Tensor:
    """Blend with a smoothed image, whose edge pixels stay."""
    floats = images.float()
    inner = floats[:, :, 1:-1, 1:-1]
    sums = F.avg_pool2d(floats, 3, 1, divisor_override=1) + 4 * inner
    smooth = floats.clone()
    smooth[:, :, 1:-1, 1:-1] = (sums / 13 + 0.5).floor()
    return _blend(smooth, images, factors)


def _grey(images: Tensor) -> Tensor:
    """Return the luminance, int64 (N,1,H,W) in 0..255: ITU-R 601-2, as in Pillow's mode L."""
    red, green, blue = images.long().split(1, dim=1)
    grey: Tensor = (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16
    return grey


def _blend(other: Tensor, images: Tensor, factors: Tensor) -> Tensor:
    """Go from `other` towards `images` by the factors (N,), which may lead beyond."""
    start = other.float()
    factor = to_device(factors.float(), images.device).view(-1, 1, 1, 1)
    return (start + factor * (images.float() - start)).clamp(0, 255).to(torch.uint8)


def _moved(images: Tensor, column: int, amounts: Tensor) -> Tensor:
    """Apply the identity matrix with `amounts` (N,) added to one of its six numbers."""
    matrices = torch.tensor([1.0, 0, 0, 0, 1, 0], dtype=torch.float64).repeat(len(images), 1)
    matrices[:, column] += amounts.double()
    return affine(images, matrices)


Operation = Callable[[Tensor, Tensor], Tensor]
# Of images and how strongly to change each, (N,) in -1..1 on the CPU. The space "fixed standard"
# of TrivialAugment (Mueller and Hutter 2021, https://arxiv.org/abs/2103.10158), for 32 pixels, but
# with colour, contrast, brightness and sharpness going both ways from 1, so that 0 changes nothing.
OPERATIONS: dict[str, Operation] = {
    "identity": lambda images, m: images,
    "autocontrast": lambda images, m: autocontrast(images),
    "equalize": lambda images, m: equalize(images),
    "rotate": lambda images, m: rotate(images, 30 * m),
    "solarize": lambda images, m: solarize(images, 256 * (1 - m.abs())),
    "posterize": lambda images, m: posterize(images, 8 - (4 * m.abs()).long()),
    "color": lambda images, m: color(images, 1 + 0.9 * m),
    "contrast": lambda images, m: contrast(images, 1 + 0.9 * m),
    "brightness": lambda images, m: brightness(images, 1 + 0.9 * m),
    "sharpness": lambda images, m: sharpness(images, 1 + 0.9 * m),
    "shear_x": lambda images, m: _moved(images, 1, 0.3 * m),
    "shear_y": lambda images, m: _moved(images, 3, 0.3 * m),
    "translate_x": lambda images, m: _moved(images, 2, 10 * m),
    "translate_y": lambda images, m: _moved(images, 5, 10 * m),
}
