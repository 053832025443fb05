"""Curves of runs, drawn from their records."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from resnet_cifar100.analysis.theme import save_figure
from resnet_cifar100.engine.advice import held_out_top1
from resnet_cifar100.engine.record import RunRecord

CURVES_SIZE = (12.0, 6.8)
FEW_EPOCHS = 20  # of which each is marked


def save_curves(record: RunRecord, path: Path) -> None:
    """Draw the curves of a run into a PNG file for a light page."""
    save_figure(path, CURVES_SIZE, lambda figure: draw_curves(figure, record))


def draw_curves(figure: Figure, record: RunRecord) -> None:
    """Draw loss, accuracy, generalisation gap and learning rate of a run."""
    (loss, accuracy), (gap, lr) = figure.subplots(2, 2)
    _draw_loss(loss, record)
    _draw_accuracy(accuracy, record)
    _draw_gap(gap, record)
    _draw_lr(lr, record)
    config = record.config
    title = f"{config.model} on {record.title}, recipe {config.recipe}, seed {config.seed}"
    figure.suptitle(title, fontsize=12, fontweight="bold")


def draw_comparison(figure: Figure, groups: Sequence[tuple[str, Sequence[RunRecord]]]) -> None:
    """Draw held-out accuracy over epochs and over time: a line a group, the mean of its runs.

    A line ends with the shortest of its runs.
    """
    by_epoch, by_time = figure.subplots(1, 2, sharey=True)
    for index, (name, records) in enumerate(groups):
        shared = min(len(record.history.epochs) for record in records)
        top1 = np.mean([held_out_top1(record)[:shared] for record in records], axis=0)
        seconds = np.mean(
            [[row["train_seconds"] for row in r.history.epochs[:shared]] for r in records], axis=0
        )
        style = {"color": f"C{index % 4}", "ls": ("-", "--", ":", "-.")[index // 4 % 4]}
        style["marker"] = "o" if shared <= FEW_EPOCHS else ""
        by_epoch.plot(_ends(records[0])[:shared], 100 * top1, ms=3, label=name, **style)
        by_time.plot(seconds / 60, 100 * top1, ms=3, **style)
    every = [record for _, records in groups for record in records]
    _epoch_axis(by_epoch, every, "Held-out top-1 by epoch", "top-1, %")
    by_time.set_title("and by training time")
    by_time.set_xlabel("minutes of training")
    by_time.grid()
    by_time.set_xlim(left=0)
    by_epoch.set_ylim(bottom=0)
    figure.legend(loc="outside lower center", ncols=2)


def _ends(record: RunRecord) -> list[float]:
    """Return where on the axis each epoch ends."""
    return [row["epoch"] + 1 for row in record.history.epochs]


def _epoch_axis(axes: Axes, records: Sequence[RunRecord], title: str, label: str) -> None:
    epochs = max(len(record.history.epochs) for record in records)
    axes.set_title(title)
    axes.set_xlim(0, 1.03 * max(1, epochs))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=epochs > 1))
    axes.set_xlabel("epoch")
    axes.set_ylabel(label)
    axes.grid()


def _draw_loss(axes: Axes, record: RunRecord) -> None:
    steps, split = record.history.steps, record.history.held_out
    at = [row["step"] / record.steps_per_epoch for row in steps]
    axes.plot(at, [row["train/loss"] for row in steps], lw=1.2, label="train")
    held = [row[f"{split}/loss"] for row in record.history.epochs]
    axes.plot(_ends(record), held, "o-", ms=3, label=split)
    axes.legend()
    smoothing = record.config.label_smoothing
    title = f"Loss (train with label smoothing {smoothing:g})" if smoothing else "Loss"
    _epoch_axis(axes, [record], title, "cross-entropy, nats")


def _draw_accuracy(axes: Axes, record: RunRecord) -> None:
    epochs, split = record.history.epochs, record.history.held_out
    for key, style, colour, label in [
        ("train/top1", "o-", "C0", "train top-1, augmented images"),
        (f"{split}/top1", "o-", "C1", f"{split} top-1"),
        (f"{split}/top5", "o:", "C2", f"{split} top-5"),
    ]:
        values = [100 * row[key] for row in epochs]
        axes.plot(_ends(record), values, style, ms=3, color=colour, label=label)
    title = (
        f"Accuracy: test top-1 {record.result['test/top1']:.2%}" if record.result else "Accuracy"
    )
    _epoch_axis(axes, [record], title, "%")
    axes.set_ylim(0, 100)
    axes.legend(loc="lower right")


def _draw_gap(axes: Axes, record: RunRecord) -> None:
    split = record.history.held_out
    gaps = [100 * (row["train/top1"] - row[f"{split}/top1"]) for row in record.history.epochs]
    axes.axhline(0, color="grey", lw=0.8)
    axes.plot(_ends(record), gaps, "o-", ms=3, color="C3")
    axes.fill_between(_ends(record), gaps, color="C3", alpha=0.15)
    title = (
        f"Generalisation gap: {gaps[-1]:.1f} points at the end" if gaps else "Generalisation gap"
    )
    _epoch_axis(axes, [record], title, f"train less {split} top-1, points")


def _draw_lr(axes: Axes, record: RunRecord) -> None:
    steps = record.history.steps
    at = [row["step"] / record.steps_per_epoch for row in steps]
    axes.plot(at, [row["lr"] for row in steps], lw=1.2, color="grey")
    axes.set_ylim(bottom=0)
    _epoch_axis(axes, [record], "Learning rate", "step size")
