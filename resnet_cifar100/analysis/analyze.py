"""`analyze`: evaluate a network once and write its report, its figures and its tables."""

import csv
import dataclasses
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from resnet_cifar100.analysis.calibration import calibration_error, fit_temperature
from resnet_cifar100.analysis.corruptions import CORRUPTIONS
from resnet_cifar100.analysis.findings import Names, superclass_top1
from resnet_cifar100.analysis.material import Evaluation, Figures, Material
from resnet_cifar100.analysis.predictions import predict_split
from resnet_cifar100.analysis.report import render_report
from resnet_cifar100.analysis.scores import class_scores, merge_classes
from resnet_cifar100.analysis.webpage import render_page
from resnet_cifar100.bundle import Bundle, Calibration, load_bundle
from resnet_cifar100.config import BEST_MODEL, Config
from resnet_cifar100.data.cifar100 import load_dataset, training_splits
from resnet_cifar100.data.loader import Split
from resnet_cifar100.engine.evaluate import evaluate
from resnet_cifar100.engine.record import RunRecord, load_record
from resnet_cifar100.errors import CheckpointError, ConfigError
from resnet_cifar100.runtime import environment
from resnet_cifar100.storage import replace_file

SEVERITIES = (1, 3, 5)  # of the five: enough for a curve, and three fifths of the time
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a report is to hold."""

    device: torch.device
    split: Literal["test", "val", "train"] = "test"
    data_dir: Path | None = None
    with_images: bool = True
    corrupted: int = 1000
    """Images that are corrupted, 0 for none."""


def analyze(path: Path, record_dir: Path | None, out: Path, options: Options, say: Say) -> Material:
    """Write the report of a checkpoint file or of the folder of a run to `out`.

    `say` is told what takes a while.

    Raises:
        CheckpointError: where there is neither a network nor a finished epoch to analyse.
        ConfigError, DataError: for a split that the run does not have, or data that is missing.
    """
    record, weights = _find(path, record_dir)
    evaluation = None
    if weights is not None:
        evaluation = _evaluate(load_bundle(weights), options, say)
    elif record is None or not record.history.epochs:
        raise CheckpointError(f"{path} holds no weights and no finished epoch: nothing to analyse")
    name = path.stem if path.is_file() else path.resolve().name
    material = Material(name, record, evaluation, options.with_images)
    say(f"Drawing the figures and writing {out} ...")
    if evaluation:
        write_tables(evaluation, out)
    replace_file(out / "metrics.json", json.dumps(metrics(material), indent=2) + "\n")
    markdown = render_report(material, Figures(out))
    replace_file(out / "report.md", markdown)
    replace_file(out / "report.html", render_page(markdown, out))
    return material


def _find(path: Path, record_dir: Path | None) -> tuple[RunRecord | None, Path | None]:
    """Return the record and the weights that belong to `path`, where there are such."""
    if path.is_dir():
        weights = path / BEST_MODEL.name
        return load_record(record_dir or path), weights if weights.exists() else None
    if record_dir is not None:
        return load_record(record_dir), path
    digest = path.with_name(f"{path.name}.sha256")
    for folder in (path.parent, *(run.parent for run in path.parent.glob("*/run.json"))):
        twin = folder / f"{BEST_MODEL.name}.sha256"
        is_same = digest.exists() and twin.exists() and digest.read_text() == twin.read_text()
        if is_same and (folder / "run.json").exists():
            return load_record(folder), path
    return None, path


def _evaluate(bundle: Bundle, options: Options, say: Say) -> Evaluation:
    config = Config.from_json(bundle.provenance["config"])
    config = dataclasses.replace(config, data_dir=options.data_dir or config.data_dir)
    dataset = load_dataset(config)
    train, val = training_splits(dataset, config)
    split = {"test": dataset.test, "val": val, "train": train}[options.split]
    if split is None:
        raise ConfigError(
            "--split val needs a run that held images out (train with --val-size 5000)"
        )
    bundle.to(options.device)
    if val is not None and bundle.calibration.temperature == 1:
        bundle = dataclasses.replace(bundle, calibration=_fitted(bundle, val))
    say(f"Evaluating {len(split.labels):,} {options.split} images of {dataset.title} ...")
    predictions = predict_split(bundle, split)
    chosen = balanced(split, options.corrupted)
    evaluation = Evaluation(bundle, options.split, split.images, predictions)
    if options.corrupted:
        ways = len(CORRUPTIONS) * len(SEVERITIES)
        say(f"Evaluating {len(chosen.labels):,} of them corrupted in {ways} ways ...")
        curves = corruption_curves(bundle, chosen)
        evaluation = dataclasses.replace(
            evaluation, corruptions=curves, corrupted=len(chosen.labels)
        )
    bundle.to(torch.device("cpu"))
    return evaluation


def _fitted(bundle: Bundle, val: Split) -> Calibration:
    """Return the temperature that fits images that the run held out."""
    held_out = predict_split(bundle, val)
    return Calibration(
        temperature=fit_temperature(held_out.logits, held_out.labels),
        source=f"fitted on the {len(val.labels):,} held-out images of this run",
    )


def balanced(split: Split, count: int) -> Split:
    """Return about `count` images, the first ones of each class in equal numbers."""
    order = split.labels.argsort(stable=True)
    sizes = split.labels.bincount()
    each = max(1, count // max(1, int((sizes > 0).sum())))
    rank = torch.arange(len(order)) - (sizes.cumsum(0) - sizes)[split.labels[order]]
    chosen = order[rank < each]
    return Split(split.images[chosen], split.labels[chosen])


def corruption_curves(bundle: Bundle, split: Split) -> dict[str, dict[int, float]]:
    """Return top-1 on `split` by corruption and severity; severity 0 is the images as they are."""
    device = bundle.preprocess.mean.device
    clean = evaluate(bundle.logits, split.to(device)).top1
    curves = {name: {0: clean} for name in CORRUPTIONS}
    for name, corrupt in CORRUPTIONS.items():
        for severity in SEVERITIES:
            corrupted = Split(corrupt(split.images, severity), split.labels)
            curves[name][severity] = evaluate(bundle.logits, corrupted.to(device)).top1
    return curves


def metrics(material: Material) -> dict[str, Any]:
    """Return every single figure of the report, by name."""
    config = material.config
    content: dict[str, Any] = {
        "dataset": material.title,
        "model": config.model,
        "recipe": config.recipe,
        "seed": config.seed,
        "trained_with": material.environments[-1],
        "analysed_with": environment([]),
    }
    if material.record:
        content["status"] = material.record.status
        content["result"] = material.record.result
        content["train_seconds"] = material.record.history.train_seconds
    if evaluation := material.evaluation:
        predictions = evaluation.predictions
        raw = predictions.logits.softmax(dim=1).amax(dim=1)
        scores = class_scores(evaluation.confusion)
        content |= {
            "split": evaluation.split,
            "images": len(predictions.labels),
            "top1": predictions.top_k(1),
            "top5": predictions.top_k(5),
            "loss": float(predictions.losses.mean()),
            "superclass_top1": superclass_top1(predictions, evaluation.names),
            "macro_precision": float(scores.precision.mean()),
            "macro_recall": float(scores.recall.mean()),
            "macro_f1": float(scores.f1.mean()),
            "temperature": predictions.temperature,
            "calibration_error_as_trained": calibration_error(raw, predictions.hits),
            "calibration_error": calibration_error(predictions.confidence, predictions.hits),
            "corrupted_images": evaluation.corrupted,
            "corruptions_top1": evaluation.corruptions,
        }
    return content


def write_tables(evaluation: Evaluation, out: Path) -> None:
    """Write predictions.npz, per_class.csv, per_superclass.csv and confusion.csv."""
    names, confusion = evaluation.names, evaluation.confusion
    evaluation.predictions.save(out / "predictions.npz")
    _write_scores(out / "per_class.csv", "class", names.fine, confusion, names)
    merged = merge_classes(confusion, names.fine_to_coarse)
    _write_scores(out / "per_superclass.csv", "superclass", names.coarse, merged)
    rows = [[name, *row] for name, row in zip(names.fine, confusion.tolist(), strict=True)]
    _write_csv(out / "confusion.csv", ["true \\ predicted", *names.fine], rows)


def _write_scores(
    path: Path,
    kind: str,
    labels: Sequence[str],
    confusion: torch.Tensor,
    names: Names | None = None,
) -> None:
    scores = class_scores(confusion)
    head = [kind, "precision", "recall", "f1", "images"] + (["superclass"] if names else [])
    rows = [
        [label, *(f"{float(values[i]):.6f}" for values in scores[:3]), int(scores.support[i])]
        + ([names.superclass(i)] if names else [])
        for i, label in enumerate(labels)
    ]
    _write_csv(path, head, rows)


def _write_csv(path: Path, head: Sequence[object], rows: Sequence[Sequence[object]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([head, *rows])
    replace_file(path, text.getvalue())
