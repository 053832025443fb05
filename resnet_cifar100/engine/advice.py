"""What the curves of a run say, and what to try next: each piece of advice with its number."""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from resnet_cifar100.config import Config
from resnet_cifar100.engine.record import RunRecord
from resnet_cifar100.limits import WIDEST

LEAST_EPOCHS = 10  # of a curve whose shape is to be read
WIDE_GAP, NARROW_GAP = 0.10, 0.05  # between train and held-out top-1
KNOWN_BY_HEART = 0.95  # train top-1 on augmented images
LEVEL = 0.005  # of the highest held-out top-1: a curve this close to it has stopped improving
EARLY = 0.95  # of the run: a curve level before this could have stopped
RISING = 0.01  # held-out top-1 gained in the last tenth of a run that is not at its end yet
DIP, DIPS = 0.02, 3  # falls of held-out top-1 from one epoch to the next, and how many are many


class Advice(NamedTuple):
    """What to do, the figures that say so, and the flags to try it with."""

    title: str
    evidence: str
    flags: str


class Plateau(NamedTuple):
    """Where the held-out curve stops improving: 0-based epoch, and what stopping there costs."""

    epoch: int
    cost: float  # top-1 of the weights that the run keeps, less that of the epoch


def advise(record: RunRecord) -> list[Advice]:
    """Return what the record gives reason to try; often nothing.

    The rules are readings of one run. Each names what it saw, so that it can be doubted.
    """
    if record.status != "finished" or not record.history.epochs:
        return []
    return [advice for rule in _RULES for advice in rule(record)]


def find_plateau(record: RunRecord) -> Plateau | None:
    """Return after which epoch the smoothed held-out curve never gets `LEVEL` higher.

    None for runs shorter than `LEAST_EPOCHS`.
    """
    held = record.history.held_out_top1
    if len(held) < LEAST_EPOCHS:
        return None
    smooth = smoothed(held)
    epoch = next(i for i, value in enumerate(smooth) if value >= max(smooth) - LEVEL)
    kept = max(held) if record.history.split == "val" else held[-1]
    return Plateau(epoch, kept - held[epoch])


def is_early(plateau: Plateau, epochs: int) -> bool:
    """Whether a run of so many epochs could have stopped at its plateau."""
    return plateau.epoch + 1 <= EARLY * epochs


def smoothed(values: Sequence[float]) -> list[float]:
    """Return means over a twentieth of the curve, at least three points, around each point."""
    reach = -(-len(values) // 40)
    windows = (values[max(0, i - reach) : i + reach + 1] for i in range(len(values)))
    return [sum(window) / len(window) for window in windows]


def _stop_earlier(record: RunRecord) -> Iterator[Advice]:
    plateau, epochs = find_plateau(record), len(record.history.epochs)
    if plateau is None or not is_early(plateau, epochs):
        return
    effect = "cost" if plateau.cost >= 0 else "gained"
    saved = 1 - (plateau.epoch + 1) / epochs
    evidence = (
        f"After epoch {plateau.epoch + 1} of {epochs} the smoothed {record.history.split} "
        f"curve never gets {100 * LEVEL:g} points higher. Stopping there would have {effect} "
        f"{100 * abs(plateau.cost):.2f} points and saved {saved:.0%} of the steps. "
        "A schedule that ends there loses less than one cut off."
    )
    yield Advice("Early stopping", evidence, f"--epochs {plateau.epoch + 1}")


def _regularise(record: RunRecord) -> Iterator[Advice]:
    gap, config = record.history.top1_gap, record.config
    if gap < WIDE_GAP or config.optimizer == "muon":  # which gives its filters a norm of its own
        return
    evidence = (
        f"Train top-1 ends at {record.history.epochs[-1]['train/top1']:.2%}, "
        f"{record.history.split} top-1 at {record.history.held_out_top1[-1]:.2%}: "
        f"a gap of {100 * gap:.1f} points. In this project's ablation of 50 epochs twice the "
        "weight decay gained two points."
    )
    flags = f"--weight-decay {2 * config.weight_decay or 5e-4:g}"
    yield Advice("Stronger regularisation", evidence, flags)


def _augment(record: RunRecord) -> Iterator[Advice]:
    if record.config.augment or record.history.top1_gap < WIDE_GAP:
        return
    train = record.history.epochs[-1]["train/top1"]
    evidence = (
        f"In the last epoch {train:.2%} of the training images were recognised, "
        f"{record.history.held_out_top1[-1]:.2%} of the {record.history.split} images. More "
        "variety gained most in this project's ablation of 50 epochs: TrivialAugment and CutMix "
        "two points each; Cutout and Mixup nothing that three seeds can show."
    )
    yield Advice("Enhanced augmentation", evidence, "--augment trivial_augment")


def _lower_lr(record: RunRecord) -> Iterator[Advice]:
    rows, held = record.history.epochs, record.history.held_out_top1
    peak = max(row["lr"] for row in rows)
    falls = [
        before - after
        for (before, after), row in zip(pairwise(held), rows[1:], strict=True)
        if row["lr"] >= peak / 2
    ]
    dips = [fall for fall in falls if fall >= DIP]
    if len(rows) < LEAST_EPOCHS or len(dips) < DIPS:
        return
    evidence = (
        f"While the learning rate was above half of its highest, {record.history.split} top-1 "
        f"fell by {100 * DIP:g} points or more from one epoch to the next {len(dips)} times, at "
        f"most by {100 * max(dips):.1f}: the steps are long enough to undo what was learned."
    )
    yield Advice("Lower learning rate", evidence, _lr_flags(record.config, factor=0.5))


def _higher_lr(record: RunRecord) -> Iterator[Advice]:
    held = record.history.held_out_top1
    train = record.history.epochs[-1]["train/top1"]
    is_smooth = all(after >= before for before, after in pairwise(held))
    if len(held) < LEAST_EPOCHS or not is_smooth or not _is_underfitted(record):
        return
    evidence = (
        f"The {record.history.split} curve never fell between two epochs, and train top-1 ends "
        f"at {train:.2%}: longer steps may get further in the same time."
    )
    yield Advice("Higher learning rate", evidence, _lr_flags(record.config, factor=2))


def _lr_flags(config: Config, *, factor: float) -> str:
    """Return the flags that scale every step size of the run."""
    flags = f"--lr {factor * config.lr:g}"
    if config.optimizer == "muon":
        flags += f" --muon-lr {factor * config.muon_lr:g}"
    return flags


def _train_longer(record: RunRecord) -> Iterator[Advice]:
    held, epochs = record.history.held_out_top1, len(record.history.epochs)
    tenth = max(1, epochs // 10)
    gain = held[-1] - held[-1 - tenth] if epochs > 1 else 0.0
    if gain < RISING:
        if epochs < LEAST_EPOCHS:
            yield from _train_longer_at_first(record)
        return
    plateau = find_plateau(record)
    if plateau and is_early(plateau, epochs):
        return
    last = "epoch" if tenth == 1 else f"{tenth} epochs"
    evidence = (
        f"{record.history.split.title()} top-1 still rose by {100 * gain:.1f} points over the "
        f"last {last} of {epochs}; train top-1 ends at "
        f"{record.history.epochs[-1]['train/top1']:.1%}."
    )
    longer = max(2 * epochs, record.config.epochs + 1)  # a run may have stopped early
    yield Advice("Longer training", evidence, f"--epochs {longer}")


def _train_longer_at_first(record: RunRecord) -> Iterator[Advice]:
    """Advise on a run of too few epochs to have a curve."""
    epochs, train = len(record.history.epochs), record.history.epochs[-1]["train/top1"]
    if _is_underfitted(record):
        when = "its only epoch" if epochs == 1 else f"{epochs} epochs"
        measured = f"{record.history.split} top-1 {record.history.held_out_top1[-1]:.1%}"
        evidence = f"After {when} train top-1 is {train:.1%} and {measured}."
        yield Advice("Longer training", evidence, "--epochs 10")


def _widen(record: RunRecord) -> Iterator[Advice]:
    wider = 2 * record.config.width
    is_short = len(record.history.epochs) < LEAST_EPOCHS
    if is_short or not _is_underfitted(record) or wider > WIDEST:
        return
    evidence = (
        f"Train top-1 ends at {record.history.epochs[-1]['train/top1']:.2%}, "
        f"{100 * record.history.top1_gap:.1f} points above {record.history.split}: "
        "the network does not fit its own training images."
    )
    yield Advice("Larger network", evidence, f"--width {wider:g}")


def _is_underfitted(record: RunRecord) -> bool:
    """Whether the training images are not known by heart; unknown where they were much changed."""
    if record.config.augment and not record.config.plain_epochs:
        return False
    train = record.history.epochs[-1]["train/top1"]
    return train < KNOWN_BY_HEART and record.history.top1_gap < NARROW_GAP


_RULES: tuple[Callable[[RunRecord], Iterator[Advice]], ...] = (
    _stop_earlier,
    _augment,
    _regularise,
    _lower_lr,
    _higher_lr,
    _train_longer,
    _widen,
)
