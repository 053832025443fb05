"""What the predictions of a network say, in sentences, and what to try next."""

from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor

from resnet_cifar100.analysis.calibration import calibration_error
from resnet_cifar100.analysis.predictions import Predictions
from resnet_cifar100.analysis.scores import class_scores, confused_pairs
from resnet_cifar100.constants import SYNTHETIC
from resnet_cifar100.engine.advice import Advice
from resnet_cifar100.markdown import plain

MISCALIBRATED = 0.05  # expected calibration error
ENOUGH_IMAGES = 2000  # for that error: of a perfect network it is 4% on 500, and less on more
WEAK = 0.10  # below the mean recall, and surely so
SURE = 3.29  # standard errors: 95% that none of a hundred classes is called weak by chance
ENOUGH_OF_A_CLASS = 30
MANY_WEAK = 6  # of these are named
HARM = 0.05  # top-1 lost to the weakest corruption
CALIBRATE = "python -m resnet_cifar100 calibrate --held-out CHECKPOINT"
CLOSE = 2.0  # times what errors at random would stay within the superclass


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

    @property
    def in_markdown(self) -> "Names":
        """The same names, safe to stand in Markdown."""
        fine, coarse = map(plain, self.fine), map(plain, self.coarse)
        return Names(list(fine), list(coarse), self.fine_to_coarse)


def describe_predictions(
    predictions: Predictions, confusion: Tensor, superclass_top1: float, names: Names
) -> list[str]:
    """Return what stands out, a sentence each."""
    names = names.in_markdown
    scores = class_scores(confusion)
    known = scores.support.nonzero().flatten()
    ranked = known[scores.recall[known].argsort(descending=True, stable=True)].tolist()
    lines = []
    if scores.recall[ranked[0]] > scores.recall[ranked[-1]]:
        best, worst = (f"{names.fine[i]} ({scores.recall[i]:.0%})" for i in (ranked[0], ranked[-1]))
        lines.append(f"Recognised best: {best}; worst: {worst}.")
    wrong = 1 - predictions.top_k(1)
    if wrong > 0:
        close = (superclass_top1 - predictions.top_k(1)) / wrong
        chance = _chance_of_same_superclass(names)
        if close >= CLOSE * chance:
            lines.append(
                f"Wrong but close: {close:.0%} of the errors stay within the superclass; "
                f"of random errors {chance:.0%} would."
            )
    for pair in confused_pairs(confusion, 1):
        lines.append(
            f"Most confused: {names.fine[pair.first]} and {names.fine[pair.second]}, "
            f"{pair.forth} images one way and {pair.back} the other."
        )
    order = predictions.confidence.argsort(descending=True)
    half = predictions.hits[order[: len(order) // 2]]
    if len(half):
        share = float(half.float().mean())
        lines.append(f"Of the half that it is surest of, {share:.1%} is right.")
    return lines


def describe_corruptions(curves: Mapping[str, Mapping[int, float]]) -> list[str]:
    """Return which corruption costs most at the lowest severity, if that is much."""
    if not curves:
        return []
    lowest = min(severity for severity in next(iter(curves.values())) if severity)
    name, curve = min(curves.items(), key=lambda item: item[1][lowest])
    if curve[0] - curve[lowest] < HARM:
        return []
    return [
        f"Most harmful of the weakest corruptions: {name}, from {curve[0]:.1%} to "
        f"{curve[lowest]:.1%}."
    ]


def advise_on_predictions(
    predictions: Predictions, confusion: Tensor, names: Names, title: str, *, has_held_out: bool
) -> Iterator[Advice]:
    """Yield what predictions for held-out images of the data set `title` give reason to try.

    `has_held_out` tells whether the run has held images out itself.
    """
    error = calibration_error(predictions.confidence, predictions.hits)
    is_enough = len(predictions.labels) >= ENOUGH_IMAGES
    if error >= MISCALIBRATED and is_enough and not predictions.is_calibrated:
        sure = float(predictions.confidence.mean())
        right = float(predictions.hits.float().mean())
        evidence = (
            f"Mean confidence is {sure:.1%} while {right:.1%} of the answers are right: "
            f"{'over' if sure > right else 'under'}confident, with an expected calibration error "
            f"of {error:.1%}. `{CALIBRATE}` fits a temperature on images "
            "that a run has held out."
        )
        yield Advice("Calibration", evidence, CALIBRATE if has_held_out else "--val-size 5000")
    names, scores = names.in_markdown, class_scores(confusion)
    limit = (scores.recall.mean() - WEAK).clamp(min=0)
    deviation = (limit * (1 - limit) / scores.support).sqrt()  # of a class just at the limit
    is_weak = scores.recall + SURE * deviation < limit
    is_weak &= scores.support >= ENOUGH_OF_A_CLASS
    weak = [fine for fine in scores.recall.argsort().tolist() if is_weak[fine]]
    if weak:
        errors = confusion.clone().fill_diagonal_(0)
        named = ", ".join(
            f"{names.fine[fine]} ({float(scores.recall[fine]):.0%}, most often taken for "
            f"{names.fine[int(errors[fine].argmax())]})"
            for fine in weak[:MANY_WEAK]
        )
        rest = f", and {len(weak) - MANY_WEAK} more" if len(weak) > MANY_WEAK else ""
        evidence = (
            f"The mean recall of the classes is {scores.recall.mean():.0%}. Surely more than "
            f"{100 * WEAK:g} points below it: {named}{rest}. No setting mends a class; its "
            "pictures show why it is hard."
        )
        flags = " --dataset synthetic" if title == SYNTHETIC else ""
        command = f"python -m resnet_cifar100 samples --per-class 10{flags}"
        yield Advice("Weak classes", evidence, command)


def _chance_of_same_superclass(names: Names) -> float:
    """Return the chance that another class, drawn at random, is in the same superclass."""
    groups = names.fine_to_coarse
    same = sum(groups.count(group) - 1 for group in groups)
    return same / max(1, len(groups) * (len(groups) - 1))
