"""How far a network's probabilities can be relied on, and which pictures are unlike its data."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from resnet_cifar100.bundle import Bundle, Calibration
from resnet_cifar100.data.loader import Split
from resnet_cifar100.engine.evaluate import eval_batches
from resnet_cifar100.judge import strangeness

KNOWN_SHARE = 0.95  # of the held-out images are to count as like the data
BINS = 15
_TEMPERATURES = (0.05, 20.0)


def fit_calibration(bundle: Bundle, train: Split, held_out: Split, source: str) -> Calibration:
    """Fit the temperature and the limit of strangeness of `bundle` on images it never learned."""
    means = fit_class_means(bundle, train)
    features = predict_features(bundle, held_out)
    with torch.no_grad():
        logits = bundle.model.forward_head(features)
    return Calibration(
        temperature=fit_temperature(logits, held_out.labels),
        most_strangeness=float(strangeness(features, means).quantile(KNOWN_SHARE)),
        source=source,
        class_means=means,
    )


def fit_class_means(bundle: Bundle, train: Split) -> Tensor:
    """Return where the features of each class point, (K,D) of unit length."""
    features = predict_features(bundle, train)
    sums = torch.zeros(len(bundle.fine_names), features.shape[1])
    return F.normalize(sums.index_add(0, train.labels, features), dim=1)


@torch.no_grad()
def predict_features(bundle: Bundle, split: Split) -> Tensor:
    """Return the pooled features of a whole split, (N,D) float32."""
    batches = (bundle.preprocess(images) for images, _ in eval_batches(split))
    return torch.cat([bundle.model.forward_features(batch) for batch in batches])


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """Return the divisor of the logits (N,K) at which the labels (N,) are most probable.

    The mean loss is convex in 1 / temperature, so halving the interval finds its one minimum.
    """
    low, high = (1 / temperature for temperature in reversed(_TEMPERATURES))
    logits = logits.double()
    for _ in range(40):
        middle = (low + high) / 2
        scale = torch.tensor(middle, dtype=torch.float64, requires_grad=True)
        (slope,) = torch.autograd.grad(F.cross_entropy(logits * scale, labels), scale)
        low, high = (low, middle) if slope > 0 else (middle, high)
    return 2 / (low + high)


class Bins(NamedTuple):
    """Images by confidence in equal intervals, each (B,): mean confidence, share right, number.

    An empty interval has confidence and accuracy 0.
    """

    confidence: Tensor
    accuracy: Tensor
    images: Tensor


def confidence_bins(confidence: Tensor, hits: Tensor) -> Bins:
    """Sort confidence (N,) in 0..1 and hits (N,) into intervals, each open at its left end.

    The 15 bins of Guo et al. 2017, https://arxiv.org/abs/1706.04599.
    """
    interval = ((confidence.double() * BINS).ceil().long() - 1).clamp(min=0)
    count = interval.bincount(minlength=BINS)
    sums = torch.zeros(2, BINS, dtype=torch.float64)
    sums.index_add_(1, interval, torch.stack([confidence.double(), hits.double()]))
    mean_confidence, accuracy = sums / count.clamp(min=1)
    return Bins(mean_confidence, accuracy, count)


def calibration_error(confidence: Tensor, hits: Tensor) -> float:
    """Return the expected calibration error in 0..1: the mean gap of the bins, by their images."""
    filled = confidence_bins(confidence, hits)
    gaps = (filled.accuracy - filled.confidence).abs() * filled.images
    return float(gaps.sum() / filled.images.sum())
