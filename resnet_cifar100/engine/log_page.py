"""The Markdown log of a run, rendered from its record while it trains and afterwards."""

import dataclasses
import shlex
import statistics
from collections.abc import Sequence

from resnet_cifar100.config import BEST_MODEL, Config, ModelConfig
from resnet_cifar100.constants import CIFAR100, SYNTHETIC
from resnet_cifar100.data.augment import MIXTURES
from resnet_cifar100.engine.advice import (
    LEVEL,
    Advice,
    advise,
    find_plateau,
    is_early,
)
from resnet_cifar100.engine.record import Row, RunRecord
from resnet_cifar100.engine.schedule import image_size_at
from resnet_cifar100.markdown import SYNTHETIC_WARNING, code, duration, markdown_table, plain
from resnet_cifar100.models.summary import Part, summarize
from resnet_cifar100.recipes import training_command

PART_HEAD = ("Part", "Layers", "Output", "Parameters", "Multiply-adds")
DOCUMENT_TOP1 = 0.7486  # of the description of a trainer that this project grew from


def render_markdown(record: RunRecord) -> str:
    """Return the whole page; the same record gives the same text."""
    parts = [
        f"# Training log: {plain(record.config.model)} on {record.title}\n",
        SYNTHETIC_WARNING if record.title == SYNTHETIC else "",
        _status(record),
        "## Results\n\n" + markdown_table(["Metric", "Value"], result_rows(record)),
        "## Performance analysis\n\n" + analysis(record),
        "## Recommendations\n\n" + recommendations(advise(record), record),
        "## Quick reference\n\n" + _quick_reference(record),
        "## Training progress\n\n" + epoch_table(record),
        "## Model\n\n" + part_table(record.config.model_config),
        "## Settings\n\n" + settings_table(record.config),
        "## Environment\n\n" + environment_tables(record.environments),
    ]
    return "\n".join(part for part in parts if part)


def result_rows(record: RunRecord) -> list[tuple[str, str]]:
    """Return what the run achieved as (metric, value), for the log and for the screen."""
    rows: list[tuple[str, str]] = []
    epochs = record.history.epochs
    if record.result:
        chosen = f"epoch {record.result['epoch'] + 1}, {plain(record.result['chosen_by'])}"
        rows += [
            (f"**Test top-1** ({chosen})", f"**{record.result['test/top1']:.2%}**"),
            ("Test top-5", f"{record.result['test/top5']:.2%}"),
            ("Test loss", f"{record.result['test/loss']:.4f}"),
        ]
        if record.train_eval_gap is not None:
            own = f"{record.result['train_eval/top1']:.2%}"
            rows.append(("Train top-1 of the same weights, images as they are", own))
    if epochs and record.history.split == "val":
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
        speed = statistics.harmonic_mean(row["speed/images_per_s"] for row in epochs)
        rows.append(("Training time, evaluation apart", duration(seconds)))
        if warmup := record.history.warmup_seconds:
            rows.append(("Warm-up before the first step, not counted above", duration(warmup)))
        rows.append(("Images per second", f"{speed:,.0f}"))
    rows.append(("Parameters", f"{record.parameters:,}"))
    rows.append(("Multiply-adds per image", f"{record.multiply_adds / 1e6:,.1f} M"))
    return rows


def analysis(record: RunRecord) -> str:
    """Return what the curves of the run say, a line each."""
    epochs, split = record.history.epochs, record.history.split
    if not epochs:
        return "No epoch is finished yet.\n"
    held = record.history.held_out_top1
    best = record.history.best_epoch(f"{split}/top1")
    ending = f"{split.title()} top-1 ends at {held[-1]:.2%} after epoch {len(held)}"
    higher = f"; its highest was {held[best]:.2%}, after epoch {best + 1}."
    lines = [ending + (higher if held[best] > held[-1] else ", its highest.")]
    if len(epochs) > 1:
        lines.append(_milestones(record))
    lines.append(
        f"Train top-1 on augmented images ends at {epochs[-1]['train/top1']:.2%}: a generalisation "
        f"gap of {100 * record.history.top1_gap:.1f} points."
    )
    if record.result and record.train_eval_gap is not None:
        lines.append(
            "Of training images as they are these weights know "
            f"{record.result['train_eval/top1']:.2%}, "
            f"{100 * record.train_eval_gap:.1f} points more than of test images."
        )
    if teacher := record.environments[-1].get("teacher"):
        lines.append(
            "Besides the labels it learned from the answers of another network: "
            f"{taught_by(teacher)}. The time to train that one is not counted here."
        )
    if part := _added_to_train_loss(record.config):
        lines.append(f"Train loss holds {part}, so it is not to be compared with {split} loss.")
    plateau = find_plateau(record)
    if plateau and is_early(plateau, len(epochs)):
        lines.append(
            f"After epoch {plateau.epoch + 1} the smoothed {split} curve never gets "
            f"{100 * LEVEL:g} points higher."
        )
    if record.result and split == "test" and record.result["test/top1"] != held[-1]:
        lines.append(
            "The curve is measured in the precision of training, the result without bf16 from "
            "the file of the weights: hence they differ a little."
        )
    if record.result and record.title == CIFAR100:
        ahead = 100 * (record.result["test/top1"] - DOCUMENT_TOP1)
        lines.append(
            f"{ahead:+.2f} points against the {DOCUMENT_TOP1:.2%} of the document that this "
            "project grew from, the best of 100 epochs of ResNet44V2 on its own validation data."
        )
    return "".join(f"- {line}\n" for line in lines)


def _milestones(record: RunRecord) -> str:
    """Return when half and nine tenths of the last held-out top-1 were reached."""
    held = record.history.held_out_top1
    rows = [
        next(row for row, top1 in zip(record.history.epochs, held, strict=True) if top1 >= aim)
        for aim in (0.5 * held[-1], 0.9 * held[-1])
    ]
    half, most = (f"{row['epoch'] + 1:.0f} ({duration(row['train_seconds'])})" for row in rows)
    return f"Half of that was reached after epoch {half}, nine tenths after epoch {most}."


def recommendations(advice: Sequence[Advice], record: RunRecord | None) -> str:
    """Return a list of what to try next, with the figures that say so."""
    text = "".join(
        f"{number}. **{one.title}**: {code(one.flags)}. {one.evidence}\n"
        for number, one in enumerate(advice, start=1)
    )
    if record is None or record.status != "finished":
        why = "The record of the run is not known" if record is None else "The run is not finished"
        return f"{text}\n{why}, so its curves are not judged.\n"
    if not advice:
        return "Nothing in these figures gives a reason to change a setting.\n"
    if record.history.split == "test":
        text += "\nFigures of the test set may choose nothing: try settings with "
        text += "`--val-size 5000`.\n"
    return text


def _status(record: RunRecord) -> str:
    done, total = len(record.history.epochs), record.config.epochs
    line = f"**Status:** {plain(record.status)}, {done} of {total} epochs, "
    line += f"recipe {code(record.config.recipe)}"
    if record.status == "running" and done:
        measured = record.history.epochs[-1]["train_seconds"]
        rest = measured * _pixels(record, done, total) / _pixels(record, 0, done)
        rest -= record.history.train_seconds - measured
        line += f", about {duration(max(0.0, rest))} of training left"
    return line + ".\n"


def _added_to_train_loss(config: Config) -> str:
    """Return in words what train loss holds besides the cross entropy of the labels."""
    parts = []
    if config.label_smoothing:
        parts.append(f"label smoothing of {config.label_smoothing:g}")
    if config.teacher:
        parts.append(f"the teacher's share of {config.distillation_weight:g}")
    if any(name.partition(":")[0] in MIXTURES for name in config.augment):
        parts.append("mixed labels")
    return " and ".join(parts)


def _pixels(record: RunRecord, first: int, last: int) -> int:
    """Return the pixels that an image has over the steps of some epochs: their cost, roughly."""
    n = record.steps_per_epoch
    sizes = (
        image_size_at(step, record.config, steps_per_epoch=n) for step in range(first * n, last * n)
    )
    return sum(size**2 for size in sizes)


def _quick_reference(record: RunRecord) -> str:
    path, package = record.config.checkpoint_path, "python -m resnet_cifar100"
    named = shlex.quote(str(path))
    place = "" if path == BEST_MODEL else f" --checkpoint-path {named}"
    again = "The same training again"
    if record.is_changed:
        again = "Its last settings from the start (it was resumed with other settings)"
    rows = [
        (again, code(training_command(record.config))),
        ("Go on with the newest interrupted run", code(f"python train.py --resume{place}")),
        ("Go on with another one", code("python train.py --resume --run-dir RUN")),
        ("Measure the weights", code(f"{package} evaluate{place}")),
        ("A report of the weights", code(f"{package} analyze {named}")),
        ("Name a picture", code(f"{package} predict PICTURE{place}")),
        ("Web page", code(f"python huggingface_app/app.py{place}")),
    ]
    return markdown_table(["What", "Command"], rows)


def taught_by(teacher: str) -> str:
    """Return the description of a teacher, its command as Markdown shows code."""
    command, _, result = teacher.rpartition(": ")
    return f"{code(command)}: {plain(result)}"


def epoch_table(record: RunRecord) -> str:
    """Return a row for each epoch."""
    if not record.history.epochs:
        return "No epoch is finished yet.\n"
    split = record.history.split
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


def part_rows(parts: Sequence[Part]) -> list[tuple[str, ...]]:
    """Return a row of `PART_HEAD` for each part of a network."""
    return [
        (
            part.name,
            part.layers,
            " x ".join(map(str, part.shape)),
            f"{part.parameters:,}",
            f"{part.multiply_adds / 1e6:,.2f} M",
        )
        for part in parts
    ]


def part_table(config: ModelConfig) -> str:
    """Return the network's stages with shapes, parameters and multiply-adds."""
    return markdown_table(PART_HEAD, part_rows(summarize(config).parts))


def settings_table(config: Config) -> str:
    """Return every setting; of a place in the file system that only this machine has, its name."""
    values = dataclasses.asdict(config.without_folders())
    return markdown_table(["Setting", "Value"], [(code(k), code(v)) for k, v in values.items()])


def environment_tables(environments: Sequence[Row]) -> str:
    """Return a table for each session of a run: versions, hardware, commit, command."""
    sessions = [
        markdown_table(["Session", str(number)], [(plain(k), plain(v)) for k, v in session.items()])
        for number, session in enumerate(environments, start=1)
    ]
    return "\n".join(sessions)
