"""Common corruptions of pictures at five severities, with the constants of CIFAR-10-C.

Hendrycks and Dietterich 2019, https://arxiv.org/abs/1903.12261; the constants are those of
https://github.com/hendrycks/robustness, ImageNet-C/create_c/make_cifar_c.py.
"""

import io
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

SEVERITIES = 5


def add_noise(images: Tensor, severity: int) -> Tensor:
    """Add Gaussian noise, always the same for the same number of images."""
    deviation = 255 * (0.04, 0.06, 0.08, 0.09, 0.10)[severity - 1]
    generator = torch.Generator().manual_seed(severity)
    noise = torch.randn(images.shape, generator=generator)
    return _to_uint8(images + deviation * noise)


def blur(images: Tensor, severity: int) -> Tensor:
    """Blur with a Gaussian; what lies outside is as the nearest pixel."""
    sigma = (0.4, 0.6, 0.7, 0.8, 1.0)[severity - 1]
    reach = int(4 * sigma + 0.5)
    weights = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2)
    weights /= weights.sum()
    channels = images.shape[1]
    kernel = weights.expand(channels, 1, 1, -1)
    padded = F.pad(images.float(), (reach,) * 4, mode="replicate")
    rows = F.conv2d(padded, kernel, groups=channels)
    return _to_uint8(F.conv2d(rows, kernel.transpose(2, 3), groups=channels))


def lower_contrast(images: Tensor, severity: int) -> Tensor:
    """Draw each channel of an image towards its mean."""
    share = (0.75, 0.5, 0.4, 0.3, 0.15)[severity - 1]
    means = images.float().mean(dim=(2, 3), keepdim=True)
    return _to_uint8(means + share * (images - means))


def compress_jpeg(images: Tensor, severity: int) -> Tensor:
    """Write and read each image as JPEG."""
    quality = (80, 65, 58, 50, 40)[severity - 1]
    decoded = []
    for image in images.permute(0, 2, 3, 1).numpy():
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=quality)
        decoded.append(np.asarray(Image.open(file)))
    return torch.from_numpy(np.stack(decoded)).permute(0, 3, 1, 2)


CORRUPTIONS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "noise": add_noise,
    "blur": blur,
    "contrast": lower_contrast,
    "JPEG": compress_jpeg,
}
"""Each takes uint8 images (N,3,H,W) on the CPU and a severity in 1..5 and returns such images."""


def _to_uint8(floats: Tensor) -> Tensor:
    """Round down, as the paper's data set does, but for the error of fp32 itself."""
    return (floats + 2e-4).clamp(0, 255).to(torch.uint8)
