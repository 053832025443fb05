"""`analyze`: evaluate a network once and write its report, its figures and its tables."""

import contextlib
import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from resnet_cifar100.analysis.calibration import calibration_error, fit_temperature
from resnet_cifar100.analysis.corruptions import CORRUPTIONS, SEVERITIES
from resnet_cifar100.analysis.material import (
    Evaluation,
    Figures,
    Material,
    belongs,
    clear_report,
)
from resnet_cifar100.analysis.predictions import predict_split
from resnet_cifar100.analysis.report import render_report
from resnet_cifar100.analysis.scores import ClassScores, class_scores
from resnet_cifar100.analysis.webpage import render_page
from resnet_cifar100.bundle import Bundle, Calibration, load_bundle
from resnet_cifar100.config import BEST_MODEL
from resnet_cifar100.constants import SYNTHETIC
from resnet_cifar100.data.cifar100 import Dataset, ranks_in_class, training_splits
from resnet_cifar100.data.loader import Split
from resnet_cifar100.engine.evaluate import SplitName, evaluate, load_split
from resnet_cifar100.engine.record import RunRecord, load_record
from resnet_cifar100.errors import CheckpointError, ConfigError, NonFiniteError
from resnet_cifar100.runtime import environment
from resnet_cifar100.storage import replace_csv, replace_file

SHOWN_SEVERITIES = range(1, SEVERITIES + 1, 2)  # enough for a curve
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a report is to hold."""

    device: torch.device
    split: SplitName = "test"
    data_dir: Path | None = None
    with_images: bool = True
    corrupted: int = 1000
    """Images that are corrupted, 0 for none."""


def analyze(path: Path, record_dir: Path | None, out: Path, options: Options, say: Say) -> Material:
    """Write the report of a checkpoint file or of the folder of a run to `out`.

    `say` is told what takes a while.

    Raises:
        CheckpointError: where there is neither a network nor a finished epoch to analyse, or `out`
            cannot be written to.
        ConfigError: for a split that the run does not have, or the record of another run.
        DataError: for data that is missing.
        NonFiniteError: for a network that answers with NaN.
    """
    if path.is_dir() and not (path / "run.json").exists() and (path / BEST_MODEL.name).exists():
        path = path / BEST_MODEL.name
    weights = path / BEST_MODEL.name if path.is_dir() else path
    bundle = load_bundle(weights) if weights.exists() or not path.is_dir() else None
    record = _find_record(path, record_dir, bundle)
    if bundle is None and (record is None or not record.history.epochs):
        raise CheckpointError(f"{path} holds no weights and no finished epoch: nothing to analyse")
    data = load_split(bundle.provenance, options.split, options.data_dir) if bundle else None
    clear_report(out)
    evaluation = _evaluate(bundle, *data, options, say) if bundle and data else None
    name = path.stem if path.is_file() else path.resolve().name
    material = Material(name, record, evaluation, environment(options.device), options.with_images)
    say(f"Drawing the figures and writing {out} ...")
    if evaluation:
        write_tables(evaluation, out)
    replace_file(out / "metrics.json", json.dumps(metrics(material), indent=2) + "\n")
    figures = Figures(out, is_synthetic=material.title == SYNTHETIC)
    markdown = render_report(material, figures)
    replace_file(out / "report.md", markdown)
    replace_file(out / "report.html", render_page(markdown, out))
    return material


def _find_record(path: Path, named: Path | None, bundle: Bundle | None) -> RunRecord | None:
    """Return the record that was named, else that of the run at `path` or beside it, if any."""
    if named is not None or bundle is None:
        record = load_record(named or path)
        if bundle and not belongs(record, bundle):
            raise ConfigError(f"--record {named} is not of the run that made {path}")
        return record
    if path.is_dir():
        return load_record(path)
    for run in (path.parent / "run.json", *sorted(path.parent.glob("*/run.json"))):
        with contextlib.suppress(CheckpointError):
            record = load_record(run.parent)
            if belongs(record, bundle):
                return record
    return None


def _evaluate(
    bundle: Bundle, dataset: Dataset, split: Split, options: Options, say: Say
) -> Evaluation:
    bundle.to(options.device)
    config = bundle.config
    _, val = training_splits(dataset, config)
    if val is not None and options.split != "val" and bundle.calibration.temperature == 1:
        bundle = dataclasses.replace(bundle, calibration=_fitted(bundle, val))
    say(f"Evaluating {len(split.labels):,} {options.split} images of {dataset.title} ...")
    predictions = predict_split(bundle, split)
    if not predictions.logits.isfinite().all():
        raise NonFiniteError("the network answers with numbers that are not finite")
    evaluation = Evaluation(bundle, dataset.title, options.split, split.images, predictions)
    if options.corrupted:
        chosen = balanced(split, options.corrupted)
        ways = len(CORRUPTIONS) * len(SHOWN_SEVERITIES)
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
    each = max(1, count // max(1, len(split.labels.unique())))
    return split.pick(order[ranks_in_class(split.labels[order]) < each])


def corruption_curves(bundle: Bundle, split: Split) -> dict[str, dict[int, float]]:
    """Return top-1 on `split` by corruption and severity; severity 0 is the images as they are."""
    device = bundle.preprocess.mean.device
    clean = evaluate(bundle.logits, split.to(device)).top1
    curves = {name: {0: clean} for name in CORRUPTIONS}
    for name, corrupt in CORRUPTIONS.items():
        for severity in SHOWN_SEVERITIES:
            corrupted = Split(corrupt(split.images, severity), split.labels)
            curves[name][severity] = evaluate(bundle.logits, corrupted.to(device)).top1
    return curves


def metrics(material: Material) -> dict[str, Any]:
    """Return the single figures of the report, by name."""
    config = material.config
    content: dict[str, Any] = {
        "dataset": material.title,
        "model": config.model,
        "recipe": config.recipe,
        "seed": config.seed,
        "trained_with": material.environments[-1],
        "analysed_with": material.analysed_with,
    }
    if material.record:
        content["status"] = material.record.status
        content["result"] = material.record.result
        content["train_seconds"] = material.record.history.train_seconds
    if evaluation := material.evaluation:
        predictions = evaluation.predictions
        scores = class_scores(evaluation.confusion)
        content |= {
            "split": evaluation.split,
            "images": len(predictions.labels),
            "top1": predictions.top_k(1),
            "top5": predictions.top_k(5),
            "loss": float(predictions.losses.mean()),
            "superclass_top1": evaluation.superclass_top1,
            "macro_precision": float(scores.precision.mean()),
            "macro_recall": float(scores.recall.mean()),
            "macro_f1": float(scores.f1.mean()),
            "temperature": predictions.temperature,
            "calibration_error_as_trained": calibration_error(
                predictions.raw_confidence, predictions.hits
            ),
            "calibration_error": calibration_error(predictions.confidence, predictions.hits),
            "corrupted_images": evaluation.corrupted,
            "corruptions_top1": evaluation.corruptions,
        }
    return content


def write_tables(evaluation: Evaluation, out: Path) -> None:
    """Write predictions.npz, per_class.csv, per_superclass.csv and confusion.csv.

    Each names the data set, so that no figure from SYNTHETIC data can pass for another.
    """
    names, confusion, title = evaluation.names, evaluation.confusion, evaluation.title
    evaluation.predictions.save(out / "predictions.npz", title)
    scores = class_scores(confusion)
    groups = [names.superclass(fine) for fine in range(len(names.fine))]
    _write_scores(out / "per_class.csv", title, {"class": names.fine, "superclass": groups}, scores)
    scores = class_scores(evaluation.coarse_confusion)
    _write_scores(out / "per_superclass.csv", title, {"superclass": names.coarse}, scores)
    rows = [[name, *row] for name, row in zip(names.fine, confusion.tolist(), strict=True)]
    replace_csv(out / "confusion.csv", [[f"{title}: true \\ predicted", *names.fine], *rows])


def _write_scores(
    path: Path, title: str, labels: dict[str, list[str]], scores: ClassScores
) -> None:
    head = ["dataset", *labels, "precision", "recall", "f1", "images"]
    rows = [
        [
            title,
            *names,
            *(f"{float(values[i]):.6f}" for values in scores[:3]),
            int(scores.support[i]),
        ]
        for i, names in enumerate(zip(*labels.values(), strict=True))
    ]
    replace_csv(path, [head, *rows])
