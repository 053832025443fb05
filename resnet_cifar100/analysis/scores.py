"""What follows from predictions: confusion, precision and recall, risk, likely label errors."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class ClassScores(NamedTuple):
    """Of each class (K,): precision, recall and F1 as fractions, and its number of images.

    A class that is never predicted has precision 0, one without images recall 0.
    """

    precision: Tensor
    recall: Tensor
    f1: Tensor
    support: Tensor


class Pair(NamedTuple):
    """Two classes that are taken for one another, `first` for `second` `forth` times."""

    first: int
    second: int
    forth: int
    back: int


def confusion_matrix(predicted: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Return how often each class (row) was predicted as each (column), int64 (K,K)."""
    return torch.bincount(labels * classes + predicted, minlength=classes**2).view(classes, classes)


def class_scores(confusion: Tensor) -> ClassScores:
    """Return the scores of each class from a confusion matrix (K,K) with true classes in rows."""
    confusion = confusion.double()
    hits, support, predicted = confusion.diag(), confusion.sum(1), confusion.sum(0)
    return ClassScores(
        precision=hits / predicted.clamp(min=1),
        recall=hits / support.clamp(min=1),
        f1=2 * hits / (support + predicted).clamp(min=1),
        support=support.long(),
    )


def merge_classes(confusion: Tensor, groups: Sequence[int], count: int) -> Tensor:
    """Return the confusion (G,G) of `count` groups of classes; groups[k] is that of class k."""
    group = torch.tensor(groups)
    rows = torch.zeros(count, len(confusion), dtype=confusion.dtype).index_add(0, group, confusion)
    return torch.zeros(count, count, dtype=confusion.dtype).index_add(1, group, rows)


def confused_pairs(confusion: Tensor, most: int) -> list[Pair]:
    """Return the pairs of classes that are confused most, both directions together."""
    both = (confusion + confusion.T).triu(diagonal=1)
    counts, places = both.flatten().sort(descending=True, stable=True)
    pairs = []
    for place in places[: min(most, int((counts > 0).sum()))].tolist():
        first, second = divmod(place, len(confusion))
        forth, back = int(confusion[first, second]), int(confusion[second, first])
        if forth < back:
            first, second, forth, back = second, first, back, forth
        pairs.append(Pair(first, second, forth, back))
    return pairs


def risk_coverage(confidence: Tensor, hits: Tensor) -> tuple[Tensor, Tensor]:
    """Return (coverage, risk), each (N,): the share answered and the share of errors among those.

    Images are answered in order of confidence (N,), the surest first
    (Geifman and El-Yaniv 2017, https://arxiv.org/abs/1705.08500).
    """
    errors = (~hits[confidence.argsort(descending=True, stable=True)]).double()
    answered = torch.arange(1, len(errors) + 1, dtype=torch.float64)
    return answered / len(errors), errors.cumsum(0) / answered


def likely_label_errors(probs: Tensor, labels: Tensor) -> Tensor:
    """Return which images (N,) are confidently given another class than their label.

    Confident learning (Northcutt et al. 2021, https://arxiv.org/abs/1911.00068): a class counts as
    confident for an image if its probability, of probs (N,K), is at least the mean probability of
    that class over the images labelled with it. An image is marked if the most probable of its
    confident classes is not its label. Mistakes that a network makes with confidence look the
    same, so most of the marked are to be looked at, not believed. Only images are marked whose
    prediction is not their label and has at least half of the probability.
    """
    classes = probs.shape[1]
    own = probs.gather(1, labels[:, None]).double().squeeze(1)
    sums = torch.zeros(classes, dtype=torch.float64).index_add(0, labels, own)
    threshold = sums / labels.bincount(minlength=classes).clamp(min=1)
    is_confident = (probs >= threshold) & (threshold > 0)
    best = torch.where(is_confident, probs, -1).argmax(dim=1)
    top, predicted = probs.max(dim=1)
    return is_confident.any(dim=1) & (best != labels) & (predicted != labels) & (top >= 0.5)
