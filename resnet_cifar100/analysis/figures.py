"""Pictures of a run, drawn from its record."""

import io
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from resnet_cifar100.engine.record import RunRecord
from resnet_cifar100.storage import replace_file

TRAIN, HELD_OUT, GREY = "#4c72b0", "#dd8452", "#777777"


def save_curves(record: RunRecord, path: Path) -> None:
    """Draw loss, accuracy and learning rate of a run into a PNG file."""
    with mpl.rc_context({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(12, 3.8), layout="constrained")
        loss, accuracy, lr = figure.subplots(1, 3)
        _draw_loss(loss, record)
        _draw_accuracy(accuracy, record)
        _draw_lr(lr, record)
        config = record.config
        figure.suptitle(
            f"{config.model} on {record.title}, recipe {config.recipe}, seed {config.seed}",
            fontsize=12,
            fontweight="bold",
        )
        picture = io.BytesIO()
        figure.savefig(picture, format="png", dpi=110)
    replace_file(path, picture.getvalue())


def _epoch_axis(axes: Axes, record: RunRecord, title: str, label: str) -> None:
    axes.set_title(title)
    axes.set_xlim(0, 1.03 * max(1, len(record.history.epochs)))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=len(record.history.epochs) > 1))
    axes.set_xlabel("epoch")
    axes.set_ylabel(label)
    axes.grid(alpha=0.25)


def _draw_loss(axes: Axes, record: RunRecord) -> None:
    steps, epochs = record.history.steps, record.history.epochs
    at = [row["step"] / record.steps_per_epoch for row in steps]
    axes.plot(at, [row["train/loss"] for row in steps], color=TRAIN, lw=1.2, label="train")
    if epochs:
        split = record.history.held_out
        ends = [row["epoch"] + 1 for row in epochs]
        axes.plot(
            ends, [row[f"{split}/loss"] for row in epochs], "o-", ms=3, color=HELD_OUT, label=split
        )
    axes.legend(frameon=False)
    _epoch_axis(axes, record, "Loss", "cross-entropy")


def _draw_accuracy(axes: Axes, record: RunRecord) -> None:
    epochs = record.history.epochs
    _epoch_axis(axes, record, "Accuracy", "%")
    axes.set_ylim(0, 100)
    if not epochs:
        return
    split = record.history.held_out
    ends = [row["epoch"] + 1 for row in epochs]
    for key, style, color, label in [
        ("train/top1", "o-", TRAIN, "train top-1 (augmented)"),
        (f"{split}/top1", "o-", HELD_OUT, f"{split} top-1"),
        (f"{split}/top5", "o:", GREY, f"{split} top-5"),
    ]:
        axes.plot(ends, [100 * row[key] for row in epochs], style, ms=3, color=color, label=label)
    if record.result:
        axes.set_title(f"Accuracy: test top-1 {record.result['test/top1']:.2%}")
    axes.legend(frameon=False, loc="best")


def _draw_lr(axes: Axes, record: RunRecord) -> None:
    steps = record.history.steps
    at = [row["step"] / record.steps_per_epoch for row in steps]
    axes.plot(at, [row["lr"] for row in steps], color=GREY, lw=1.2)
    axes.set_ylim(bottom=0)
    _epoch_axis(axes, record, "Learning rate", "")
