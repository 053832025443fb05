"""Slow, obvious versions of the batched operations, one image at a time."""

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance, ImageOps


def crop_and_flip(
    image: np.ndarray, *, top: int, left: int, flip: bool, padding: int, fill: str = "zeros"
) -> np.ndarray:
    """Return one image (C,H,W), padded, cut at (top, left) and mirrored if `flip`."""
    _, height, width = image.shape
    mode = {"zeros": "constant", "reflect": "reflect"}[fill]
    padded = np.pad(image, ((0, 0), (padding, padding), (padding, padding)), mode=mode)
    window = padded[:, top : top + height, left : left + width]
    return window[:, :, ::-1] if flip else window


def top_k_share(logits: np.ndarray, labels: np.ndarray, k: int) -> float:
    """Return the share of rows whose label is among the k largest logits."""
    hits = [label in np.argsort(row)[::-1][:k] for row, label in zip(logits, labels, strict=True)]
    return float(np.mean(hits))


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean negative log-probability of the labels."""
    rows = [row - np.log(np.exp(row).sum()) for row in logits.astype(np.float64)]
    return -float(np.mean([row[label] for row, label in zip(rows, labels, strict=True)]))


def orthogonalized(matrix: np.ndarray) -> np.ndarray:
    """Return a matrix (M,N) after three rounds of x -> ax + b(xx')x + c(xx')(xx')x."""
    x = matrix.astype(np.float64) / np.linalg.norm(matrix)
    for _ in range(3):
        x = 3.4445 * x - 4.7750 * x @ x.T @ x + 2.0315 * x @ x.T @ x @ x.T @ x
    return x


def muon_step(
    bank: np.ndarray, gradient: np.ndarray, moving: np.ndarray, *, lr: float, momentum: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return filters (D,C,k,k) and their moving sum of gradients after one step of Muon."""
    moving = momentum * moving + gradient
    ahead = gradient + momentum * moving
    update = orthogonalized(ahead.reshape(len(bank), -1)).reshape(bank.shape)
    return bank * np.sqrt(len(bank)) / np.linalg.norm(bank) - lr * update, moving


def moved(picture: Image.Image, matrix: Sequence[float]) -> Image.Image:
    """Return the picture with (x, y) taken from (ax + by + c, dx + ey + f), or black."""
    return picture.transform(picture.size, Image.Transform.AFFINE, matrix, Image.Resampling.NEAREST)


PILLOW: dict[str, Callable[[Image.Image, Any], Image.Image]] = {
    "affine": moved,
    "identity": lambda picture, _: picture,
    "autocontrast": lambda picture, _: ImageOps.autocontrast(picture),
    "equalize": lambda picture, _: ImageOps.equalize(picture),
    "rotate": lambda picture, degrees: picture.rotate(degrees),
    "solarize": ImageOps.solarize,
    "posterize": lambda picture, bits: ImageOps.posterize(picture, int(bits)),
    "color": lambda picture, factor: ImageEnhance.Color(picture).enhance(factor),
    "contrast": lambda picture, factor: ImageEnhance.Contrast(picture).enhance(factor),
    "brightness": lambda picture, factor: ImageEnhance.Brightness(picture).enhance(factor),
    "sharpness": lambda picture, factor: ImageEnhance.Sharpness(picture).enhance(factor),
    "shear_x": lambda picture, shear: moved(picture, (1, shear, 0, 0, 1, 0)),
    "shear_y": lambda picture, shear: moved(picture, (1, 0, 0, shear, 1, 0)),
    "translate_x": lambda picture, pixels: moved(picture, (1, 0, pixels, 0, 1, 0)),
    "translate_y": lambda picture, pixels: moved(picture, (1, 0, 0, 0, 1, pixels)),
}


def by_pillow(name: str, image: np.ndarray, amount: float | Sequence[float]) -> np.ndarray:
    """Return one uint8 image (3,H,W) after an operation of Pillow's."""
    picture = Image.fromarray(image.transpose(1, 2, 0))
    return np.asarray(PILLOW[name](picture, amount)).transpose(2, 0, 1)


def cutout(image: np.ndarray, *, y: int, x: int, side: int) -> np.ndarray:
    """Return one image (C,H,W), of the mean colour of CIFAR-100 in a square around (y, x)."""
    result = image.copy()
    _, height, width = image.shape
    for row in range(y - side // 2, y - side // 2 + side):
        for column in range(x - side // 2, x - side // 2 + side):
            if 0 <= row < height and 0 <= column < width:
                result[:, row, column] = 129, 124, 112
    return result


def erase(
    image: np.ndarray, noise: np.ndarray, *, area: float, aspect: float, down: float, across: float
) -> np.ndarray:
    """Return one image (C,H,W) with `noise` in a box of `area` pixels, `aspect` by height to width.

    `down` and `across` in 0..1 tell where it lies of all places in which it is whole.
    """
    result = image.copy()
    _, height, width = image.shape
    tall = min(height, max(1, round((area * aspect) ** 0.5)))
    wide = min(width, max(1, round((area / aspect) ** 0.5)))
    top, left = int(down * (height - tall + 1)), int(across * (width - wide + 1))
    for row in range(top, top + tall):
        for column in range(left, left + wide):
            result[:, row, column] = noise[:, row, column]
    return result


def follows(values: Sequence[float], cdf: Callable[[float], float]) -> bool:
    """Whether Kolmogorov's test takes the values for draws of a distribution, at 1 in 1000."""
    ordered = sorted(values)
    count = len(ordered)
    distances = [
        max(cdf(value) - index / count, (index + 1) / count - cdf(value))
        for index, value in enumerate(ordered)
    ]
    return max(distances) < 1.95 / count**0.5


def cutmix_share(draw: random.Random) -> float:
    """Return the share of a square of side 1 under a box that is cut off at its border."""
    side, y, x = draw.random() ** 0.5, draw.random(), draw.random()
    bottom, right = min(1.0, y + side / 2), min(1.0, x + side / 2)
    return (bottom - max(0.0, y - side / 2)) * (right - max(0.0, x - side / 2))
