"""What the predictions of a network say, in sentences, and what to try next."""

from collections.abc import Iterator, Sequence

import torch

from resnet_cifar100.analysis.calibration import calibration_error
from resnet_cifar100.analysis.predictions import Predictions
from resnet_cifar100.analysis.scores import class_scores, confused_pairs, confusion_matrix
from resnet_cifar100.engine.advice import Advice

MISCALIBRATED = 0.05  # expected calibration error
WEAK = 0.5  # recall: a class that is missed as often as it is found
MANY_WEAK = 6  # of these are named


class Names:
    """The names of classes and superclasses as words, and which class is in which."""

    def __init__(
        self, fine: Sequence[str], coarse: Sequence[str], fine_to_coarse: Sequence[int]
    ) -> None:
        self.fine = [name.replace("_", " ") for name in fine]
        self.coarse = [name.replace("_", " ") for name in coarse]
        self.fine_to_coarse = tuple(fine_to_coarse)

    def superclass(self, fine: int) -> str:
        """Return the name of the superclass of a class."""
        return self.coarse[self.fine_to_coarse[fine]]


def superclass_top1(predictions: Predictions, names: Names) -> float:
    """Return the share of images whose predicted class is in the right superclass."""
    coarse = torch.tensor(names.fine_to_coarse)
    return float((coarse[predictions.predicted] == coarse[predictions.labels]).float().mean())


def describe_predictions(predictions: Predictions, names: Names) -> list[str]:
    """Return what stands out, a sentence each."""
    confusion = confusion_matrix(predictions.predicted, predictions.labels, len(names.fine))
    recall = class_scores(confusion).recall
    best, worst = int(recall.argmax()), int(recall.argmin())
    lines = [
        f"Best recognised: {names.fine[best]} ({float(recall[best]):.0%} of its images). "
        f"Worst: {names.fine[worst]} ({float(recall[worst]):.0%}).",
    ]
    wrong = 1 - predictions.top_k(1)
    if wrong > 0:
        close = (superclass_top1(predictions, names) - predictions.top_k(1)) / wrong
        chance = _chance_of_same_superclass(names)
        lines.append(
            f"Wrong but close: {close:.0%} of the errors stay within the superclass; "
            f"a random error would {chance:.0%} of the time."
        )
    for pair in confused_pairs(confusion, 1):
        lines.append(
            f"Most confused: {names.fine[pair.first]} and {names.fine[pair.second]}, "
            f"{pair.forth} images one way and {pair.back} the other."
        )
    order = predictions.confidence.argsort(descending=True)
    half = predictions.hits[order[: len(order) // 2]]
    if len(half):
        lines.append(
            f"Of the half that it is surest of, {float(half.float().mean()):.1%} is right."
        )
    return lines


def advise_on_predictions(predictions: Predictions, names: Names) -> Iterator[Advice]:
    """Yield what the predictions give reason to try."""
    error = calibration_error(predictions.confidence, predictions.hits)
    if error >= MISCALIBRATED:
        sure = float(predictions.confidence.mean())
        right = float(predictions.hits.float().mean())
        evidence = (
            f"Mean confidence is {sure:.1%} while {right:.1%} of the answers are right: "
            f"{'over' if sure > right else 'under'}confident, with an expected calibration error "
            f"of {error:.1%}. Train with --val-size 5000, then `calibrate` fits a temperature."
        )
        yield Advice("Calibration", evidence, "python -m resnet_cifar100 calibrate")
    confusion = confusion_matrix(predictions.predicted, predictions.labels, len(names.fine))
    scores = class_scores(confusion)
    weak = [
        fine
        for fine in scores.recall.argsort().tolist()
        if scores.recall[fine] < WEAK and scores.support[fine]
    ]
    if weak and float(scores.recall.mean()) >= WEAK:
        errors = confusion.clone().fill_diagonal_(0)
        named = ", ".join(
            f"{names.fine[fine]} ({float(scores.recall[fine]):.0%}, most often taken for "
            f"{names.fine[int(errors[fine].argmax())]})"
            for fine in weak[:MANY_WEAK]
        )
        rest = f", and {len(weak) - MANY_WEAK} more" if len(weak) > MANY_WEAK else ""
        verb = "is" if len(weak) == 1 else "are"
        evidence = (
            f"{len(weak)} of {len(names.fine)} classes {verb} missed more often than found: {named}"
            f"{rest}. No setting mends a class; looking at its pictures says why it is hard."
        )
        yield Advice("Weak classes", evidence, "python -m resnet_cifar100 samples --per-class 10")


def _chance_of_same_superclass(names: Names) -> float:
    """Return the chance that another class, drawn at random, is in the same superclass."""
    groups = names.fine_to_coarse
    same = sum(groups.count(group) - 1 for group in groups)
    return same / max(1, len(groups) * (len(groups) - 1))
