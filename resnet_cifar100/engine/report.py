"""The Markdown log of a run, rendered from its record while it trains and afterwards."""

import dataclasses
from collections.abc import Sequence
from datetime import timedelta

from resnet_cifar100.engine.record import Row, RunRecord
from resnet_cifar100.models.summary import summarize

SYNTHETIC_WARNING = (
    "> **SYNTHETIC data: drawn shapes, not CIFAR-100.** "
    "No figure on this page says anything about CIFAR-100.\n"
)


def render_markdown(record: RunRecord) -> str:
    """Return the whole page; the same record gives the same text."""
    parts = [
        f"# Training log: {record.config.model} on {record.title}\n",
        SYNTHETIC_WARNING if record.title == "SYNTHETIC" else "",
        _status(record),
        "## Results\n\n" + _results(record),
        "## Training progress\n\n" + _epochs(record),
        "## Model\n\n" + _model(record),
        "## Settings\n\n" + _settings(record),
        "## Environment\n\n" + _environments(record),
    ]
    return "\n".join(part for part in parts if part)


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(str(cell) for cell in line) + " |\n" for line in lines)


def result_rows(record: RunRecord) -> list[tuple[str, str]]:
    """Return what the run achieved as (metric, value), for the log and for the screen."""
    rows: list[tuple[str, str]] = []
    epochs = record.history.epochs
    if record.result:
        chosen = f"epoch {record.result['epoch'] + 1}, {record.result['chosen_by']}"
        rows += [
            (f"**Test top-1** ({chosen})", f"**{record.result['test/top1']:.2%}**"),
            ("Test top-5", f"{record.result['test/top5']:.2%}"),
            ("Test loss", f"{record.result['test/loss']:.4f}"),
        ]
    if epochs and record.history.held_out == "val":
        best = record.history.best_epoch("val/top1")
        rows.append((f"Best val top-1 (epoch {best + 1})", f"{epochs[best]['val/top1']:.2%}"))
    elif epochs:
        best = record.history.best_epoch("test/top1")
        text = f"{epochs[best]['test/top1']:.2%}"
        rows.append((f"Highest test top-1 on the way (epoch {best + 1}, chooses nothing)", text))
    if epochs:
        rows.append(
            ("Train top-1, last epoch, augmented images", f"{epochs[-1]['train/top1']:.2%}")
        )
        seconds = epochs[-1]["train_seconds"]
        images = sum(row["speed/images_per_s"] * _epoch_seconds(record, row) for row in epochs)
        rows.append(("Training time, evaluation apart", duration(seconds)))
        if warmup := record.history.warmup_seconds:
            rows.append(("Compilation before the first step, not counted above", duration(warmup)))
        rows.append(("Images per second", f"{images / seconds:,.0f}"))
    rows.append(("Parameters", f"{record.parameters:,}"))
    rows.append(("Multiply-adds per image", f"{record.multiply_adds / 1e6:,.1f} M"))
    return rows


def duration(seconds: float) -> str:
    """Return seconds as h:mm:ss."""
    return str(timedelta(seconds=round(seconds)))


def _epoch_seconds(record: RunRecord, row: Row) -> float:
    """Return the training time of one epoch alone."""
    epoch = int(row["epoch"])
    before = record.history.epochs[epoch - 1]["train_seconds"] if epoch else 0.0
    return float(row["train_seconds"] - before)


def _status(record: RunRecord) -> str:
    done, total = len(record.history.epochs), record.config.epochs
    line = f"**Status:** {record.status}, {done} of {total} epochs, recipe `{record.config.recipe}`"
    if record.status == "running" and done:
        measured = record.history.epochs[-1]["train_seconds"]
        rest = measured / done * (total - done) - (record.history.train_seconds - measured)
        line += f", about {duration(rest)} of training left"
    return line + ".\n"


def _results(record: RunRecord) -> str:
    return markdown_table(["Metric", "Value"], result_rows(record))


def _epochs(record: RunRecord) -> str:
    if not record.history.epochs:
        return "No epoch is finished yet.\n"
    split = record.history.held_out
    head = ["Epoch", "Train loss", "Train top-1", f"{split.title()} loss", f"{split.title()} top-1"]
    head += [f"{split.title()} top-5", "Learning rate", "Images/s", "Time"]
    rows = [
        (
            f"{row['epoch'] + 1:.0f}",
            f"{row['train/loss']:.4f}",
            f"{row['train/top1']:.2%}",
            f"{row[f'{split}/loss']:.4f}",
            f"{row[f'{split}/top1']:.2%}",
            f"{row[f'{split}/top5']:.2%}",
            f"{row['lr']:.5f}",
            f"{row['speed/images_per_s']:,.0f}",
            duration(row["train_seconds"]),
        )
        for row in record.history.epochs
    ]
    return markdown_table(head, rows)


def _model(record: RunRecord) -> str:
    parts = summarize(record.config.model_config).parts
    rows = [
        (
            part.name,
            part.layers,
            " x ".join(map(str, part.shape)),
            f"{part.parameters:,}",
            f"{part.multiply_adds / 1e6:.2f} M",
        )
        for part in parts
    ]
    return markdown_table(["Part", "Layers", "Output", "Parameters", "Multiply-adds"], rows)


def _settings(record: RunRecord) -> str:
    values = dataclasses.asdict(record.config)
    return markdown_table(["Setting", "Value"], [(f"`{k}`", f"`{v}`") for k, v in values.items()])


def _environments(record: RunRecord) -> str:
    sessions = [
        markdown_table(["Session", str(number)], [(k, _cell(v)) for k, v in session.items()])
        for number, session in enumerate(record.environments, start=1)
    ]
    return "\n".join(sessions)


def _cell(value: object) -> object:
    """Return sentences, such as the notes of the runtime, as running text."""
    return " ".join(map(str, value)) if isinstance(value, list) else value
