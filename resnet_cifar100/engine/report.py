"""The Markdown log of a run, rendered from its record while it trains and afterwards."""

import dataclasses
from collections.abc import Sequence
from datetime import timedelta

from resnet_cifar100.config import Config, ModelConfig
from resnet_cifar100.engine.advice import (
    LEVEL,
    Advice,
    advise,
    find_plateau,
    held_out_top1,
    top1_gap,
)
from resnet_cifar100.engine.record import Row, RunRecord
from resnet_cifar100.models.summary import summarize

DOCUMENT_TOP1 = 0.7486  # of the system that the user wrote down
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
        "## Performance analysis\n\n" + analysis(record),
        "## Recommendations\n\n" + _advice(record),
        "## Quick reference\n\n" + _quick_reference(record),
        "## Training progress\n\n" + epoch_table(record),
        "## Model\n\n" + part_table(record.config.model_config),
        "## Settings\n\n" + settings_table(record.config),
        "## Environment\n\n" + environment_tables(record.environments),
    ]
    return "\n".join(part for part in parts if part)


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(map(_cell, line)) + " |\n" for line in lines)


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


def analysis(record: RunRecord) -> str:
    """Return what the curves of the run say, a line each."""
    epochs, split = record.history.epochs, record.history.held_out
    if not epochs:
        return "No epoch is finished yet.\n"
    held = held_out_top1(record)
    best = record.history.best_epoch(f"{split}/top1")
    highest = "its highest" if best + 1 == len(held) else f"highest {held[best]:.2%} at {best + 1}"
    lines = [
        f"{split.title()} top-1 ends at {held[-1]:.2%} after epoch {len(held)}, {highest}.",
        f"Train top-1 on augmented images ends at {epochs[-1]['train/top1']:.2%}: a generalisation "
        f"gap of {100 * top1_gap(record):.1f} points.",
    ]
    reached = []
    for share in (0.5, 0.9):
        first = next(
            row for row, top1 in zip(epochs, held, strict=True) if top1 >= share * held[-1]
        )
        time = duration(first["train_seconds"])
        reached.append(f"{share:.0%} of that after epoch {first['epoch'] + 1:.0f} ({time})")
    lines.insert(1, f"It reached {' and '.join(reached)}.")
    plateau = find_plateau(record)
    if plateau and plateau.epoch + 1 < len(epochs):
        lines.append(
            f"The smoothed {split} curve is within {100 * LEVEL:g} points of its highest from "
            f"epoch {plateau.epoch + 1} of {len(epochs)} on."
        )
    if record.result and record.title == "CIFAR-100":
        ahead = 100 * (record.result["test/top1"] - DOCUMENT_TOP1)
        lines.append(
            f"{ahead:+.2f} points against the {DOCUMENT_TOP1:.2%} of the user's document, which is "
            "the best of 100 epochs on the test set itself, by ResNet44V2."
        )
    return "".join(f"- {line}\n" for line in lines)


def recommendations(advice: Sequence[Advice]) -> str:
    """Return a list of what to try next, with the figures that say so."""
    if not advice:
        return "Nothing in these figures gives a reason to change a setting.\n"
    return "".join(
        f"{number}. **{one.title}**: `{one.flags}`. {one.evidence}\n"
        for number, one in enumerate(advice, start=1)
    )


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


def _advice(record: RunRecord) -> str:
    if record.status != "finished":
        return "The run is not finished, so its curves are not judged yet.\n"
    return recommendations(advise(record))


def _quick_reference(record: RunRecord) -> str:
    path = record.config.checkpoint_path
    usual = f"python train.py --recipe {record.config.recipe}"
    command = record.environments[0].get("command", usual)
    rows = [
        ("The same training again", f"`{command}`"),
        ("Go on with an interrupted run", "`python train.py --resume`"),
        ("Measure the weights", f"`python -m resnet_cifar100 evaluate --checkpoint-path {path}`"),
        ("A report of the weights", f"`python -m resnet_cifar100 analyze {path}`"),
        ("Name a picture", f"`python -m resnet_cifar100 predict PICTURE --checkpoint-path {path}`"),
        ("Web page", "`python huggingface_app/app.py`"),
    ]
    return markdown_table(["What", "Command"], rows)


def epoch_table(record: RunRecord) -> str:
    """Return a row for each epoch."""
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


def part_table(config: ModelConfig) -> str:
    """Return the network's stages with shapes, parameters and multiply-adds."""
    parts = summarize(config).parts
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


def settings_table(config: Config) -> str:
    """Return every setting."""
    values = dataclasses.asdict(config)
    return markdown_table(["Setting", "Value"], [(f"`{k}`", f"`{v}`") for k, v in values.items()])


def environment_tables(environments: Sequence[Row]) -> str:
    """Return a table for each session of a run: versions, hardware, commit, command."""
    sessions = [
        markdown_table(["Session", str(number)], list(session.items()))
        for number, session in enumerate(environments, start=1)
    ]
    return "\n".join(sessions)


def _cell(value: object) -> str:
    """Return a value as it may stand in a table: nothing in it is HTML or ends the cell."""
    text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text.replace("<", "&lt;").replace("|", "\\|").replace("\n", " ")
