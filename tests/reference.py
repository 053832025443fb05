"""Slow, obvious versions of the batched operations, one image at a time."""

import numpy as np


def crop_and_flip(
    image: np.ndarray, *, top: int, left: int, flip: bool, padding: int
) -> np.ndarray:
    """Return one image (C,H,W), zero-padded, cut at (top, left) and mirrored if `flip`."""
    channels, height, width = image.shape
    padded = np.zeros((channels, height + 2 * padding, width + 2 * padding), image.dtype)
    padded[:, padding : padding + height, padding : padding + width] = image
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
