"""Curves of runs, drawn from their records."""

import math
import statistics
import textwrap
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from resnet_cifar100.analysis.theme import save_figure
from resnet_cifar100.engine.record import RunRecord

CURVES_SIZE = (12.0, 6.8)
FEW_EPOCHS = 20  # of which each is marked
MOST_LINES = 8  # in one picture: four colours, whole and dashed
PANEL_COLUMNS = 4


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


def draw_top1(figure: Figure, groups: Sequence[tuple[str, Sequence[float]]]) -> None:
    """Draw the test top-1 (0..1) of every run, a row a group, its mean a stroke, the first on top.

    A line leads down from the mean of the first group, which the others are compared with.
    """
    axes = figure.subplots()
    for row, (_, top1) in enumerate(groups):
        color = "C0" if row == 0 else "C1"
        axes.plot([100 * one for one in top1], [row] * len(top1), "o", ms=5, alpha=0.6, color=color)
        if top1:
            axes.plot(100 * statistics.fmean(top1), row, "|", ms=16, mew=2.5, color=color)
    if groups[0][1]:
        axes.axvline(100 * statistics.fmean(groups[0][1]), color="C0", lw=1, ls=":")
    axes.set_yticks(range(len(groups)), [name for name, _ in groups])
    axes.set_ylim(len(groups) - 0.4, -0.6)
    axes.set_xlabel("test top-1, %: a dot a run, a stroke the mean")
    axes.grid()


def draw_comparison(figure: Figure, groups: Sequence[tuple[str, Sequence[RunRecord]]]) -> None:
    """Draw held-out accuracy over epochs and over time: a line a group, the mean of its runs.

    A line ends with the shortest of its runs. More groups than can be told apart get a panel each,
    over epochs, beside the first of them.
    """
    every = [record for _, records in groups for record in records]
    splits = {record.history.split for record in every}
    title = f"{splits.pop().title() if len(splits) == 1 else 'Held-out'} top-1 by epoch"
    if len(groups) > MOST_LINES:
        panels = figure.subplots(
            math.ceil(len(groups) / PANEL_COLUMNS), PANEL_COLUMNS, sharex=True, sharey=True
        )
        for axes in panels.flat[len(groups) :]:
            axes.remove()
        for index, (axes, group) in enumerate(zip(panels.flat, groups, strict=False)):
            axes.plot(*_mean_curve(groups[0][1]), color="C0", lw=1)
            if group is not groups[0]:
                axes.plot(*_mean_curve(group[1]), color="C1", lw=2)
            _epoch_axis(axes, every, textwrap.fill(group[0], 34), "top-1, %")
            axes.title.set_fontsize(9)
            axes.label_outer()
            if index + PANEL_COLUMNS >= len(groups):  # none is below it
                axes.tick_params(labelbottom=True)
                axes.set_xlabel("epoch")
        panels[0, 0].set_ylim(bottom=0)
        figure.suptitle(f"{title}, each beside A", fontsize=11)
        return
    by_epoch, by_time = figure.subplots(1, 2, sharey=True)
    for index, (name, records) in enumerate(groups):
        ends, top1 = _mean_curve(records)
        epochs = zip(*(record.history.epochs for record in records), strict=False)
        minutes = [statistics.fmean(row["train_seconds"] for row in rows) / 60 for rows in epochs]
        style = {"color": f"C{index % 4}", "ls": ("-", "--")[index // 4]}
        style["marker"] = "o" if len(ends) <= FEW_EPOCHS else ""
        by_epoch.plot(ends, top1, ms=3, label=name, **style)
        by_time.plot(minutes, top1, ms=3, **style)
    _epoch_axis(by_epoch, every, title, "top-1, %")
    by_time.set_title("and by training time")
    by_time.set_xlabel("minutes of training")
    by_time.grid()
    by_time.set_xlim(left=0)
    by_epoch.set_ylim(bottom=0)
    figure.legend(loc="outside lower center", ncols=2)


def comparison_size(groups: int) -> tuple[float, float]:
    """Return width and height that `draw_comparison` wants, in inches."""
    return 12.0, 4.6 if groups <= MOST_LINES else 0.6 + 2.1 * math.ceil(groups / PANEL_COLUMNS)


def _mean_curve(records: Sequence[RunRecord]) -> tuple[list[float], list[float]]:
    """Return where the epochs that all have end, and the mean held-out top-1 there, in per cent."""
    rows = zip(*(record.history.held_out_top1 for record in records), strict=False)
    top1 = [100 * statistics.fmean(of_epoch) for of_epoch in rows]
    return _ends(records[0])[: len(top1)], top1


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
    steps, split = record.history.steps, record.history.split
    at = [row["step"] / record.steps_per_epoch for row in steps]
    axes.plot(at, [row["train/loss"] for row in steps], lw=1.2, label="train")
    held = [row[f"{split}/loss"] for row in record.history.epochs]
    axes.plot(_ends(record), held, "o-", ms=3, label=split)
    axes.legend()
    smoothing, added = record.config.label_smoothing, []
    if smoothing:
        added.append(f"label smoothing {smoothing:g}")
    if record.config.teacher:
        added.append("a teacher")
    title = f"Loss (train with {' and '.join(added)})" if added else "Loss"
    _epoch_axis(axes, [record], title, "cross-entropy, nats")


def _draw_accuracy(axes: Axes, record: RunRecord) -> None:
    epochs, split = record.history.epochs, record.history.split
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
    axes.legend(loc="best")


def _draw_gap(axes: Axes, record: RunRecord) -> None:
    split = record.history.split
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
