"""Slow, obvious versions of the batched operations, one image at a time."""

import numpy as np


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
