"""How far a network's probabilities can be relied on, and which pictures are unlike its data."""

import torch
import torch.nn.functional as F
from torch import Tensor

from resnet_cifar100.bundle import Bundle, Calibration, strangeness
from resnet_cifar100.data.loader import Split
from resnet_cifar100.engine.evaluate import eval_batches

KNOWN_SHARE = 0.95  # of the held-out images are to count as like the data
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


def calibration_error(probs: Tensor, labels: Tensor, bins: int = 15) -> float:
    """Return the expected calibration error of probs (N,K), in 0..1.

    The gap between mean confidence and accuracy in `bins` equal intervals of confidence, weighted
    with the share of images in each (Guo et al. 2017, https://arxiv.org/abs/1706.04599).
    """
    confidence, predicted = probs.max(dim=1)
    gaps = (predicted == labels).double() - confidence.double()
    interval = (confidence * bins).long().clamp(max=bins - 1)
    sums = torch.zeros(bins, dtype=torch.float64).index_add(0, interval, gaps)
    return float(sums.abs().sum() / len(labels))
