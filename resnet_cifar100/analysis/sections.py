"""The sections of a report that are about predictions."""

import random
from collections.abc import Sequence

import torch
from torch import Tensor

from resnet_cifar100.analysis import charts
from resnet_cifar100.analysis.calibration import calibration_error
from resnet_cifar100.analysis.findings import CALIBRATE, Names
from resnet_cifar100.analysis.galleries import Tile, draw_gallery, gallery_size, tile_of
from resnet_cifar100.analysis.gradcam import grad_cam
from resnet_cifar100.analysis.material import Evaluation, Figures
from resnet_cifar100.analysis.scores import (
    ClassScores,
    Pair,
    class_scores,
    confused_pairs,
    likely_label_errors,
    risk_coverage,
)
from resnet_cifar100.markdown import markdown_table, plain

PAIRS = 12  # in the table of confused pairs; half of them are shown
HIGHEST_LOSSES = 24
EACH_KIND = 16  # of right and of wrong answers in the gallery
HEATED = 8  # pictures with a heat map
TRUSTED = 0.5  # top-1 of a network whose doubts about a label are worth reading
RISKS = (0.01, 0.05, 0.10)  # of which the report says how much can be answered


def classes_section(evaluation: Evaluation, figures: Figures) -> str:
    """Return scores and confusion of superclasses and classes."""
    names = evaluation.names
    fine = class_scores(evaluation.confusion)
    merged = evaluation.coarse_confusion
    coarse = class_scores(merged)
    return "\n".join(
        [
            figures.add(
                "superclasses",
                "Recall of each class, by superclass, the best recognised superclass on top",
                (11, 8),
                lambda figure: charts.draw_superclasses(figure, fine, names),
            ),
            "### Superclasses\n",
            figures.add(
                "superclass-confusion",
                "Confusion matrix of the superclasses, in per cent of the true superclass",
                (10.5, 9.5),
                lambda figure: charts.draw_superclass_matrix(figure, merged, names),
            ),
            "<details><summary>Precision, recall and F1 of every superclass</summary>\n",
            "A prediction is right here if it is any class of the right superclass.\n",
            scores_table("Superclass", names.in_markdown.coarse, coarse),
            "</details>\n",
            "### Classes\n",
            figures.add(
                "confusion",
                "Errors among all classes, ordered by superclass",
                (11, 10),
                lambda figure: charts.draw_fine_matrix(figure, evaluation.confusion, names),
            ),
            "<details><summary>Precision, recall and F1 of every class</summary>\n",
            scores_table("Class", names.in_markdown.fine, fine),
            "</details>\n",
        ]
    )


def scores_table(kind: str, names: Sequence[str], scores: ClassScores) -> str:
    """Return a row a class, the highest F1 first."""
    rows = [
        (
            names[i],
            f"{scores.f1[i]:.1%}",
            f"{scores.precision[i]:.1%}",
            f"{scores.recall[i]:.1%}",
            int(scores.support[i]),
        )
        for i in scores.f1.argsort(descending=True, stable=True).tolist()
    ]
    return markdown_table([kind, "F1", "Precision", "Recall", "Images"], rows)


def mistakes_section(evaluation: Evaluation, figures: Figures, *, with_images: bool) -> str:
    """Return the most confused pairs and the images with the highest loss."""
    names, predictions = evaluation.names, evaluation.predictions
    pairs = confused_pairs(evaluation.confusion, PAIRS)
    parts = ["### Most confused pairs\n", _pair_table(pairs, names.in_markdown)]
    if with_images:
        tiles = [tile for pair in pairs[: PAIRS // 2] for tile in _pair_tiles(evaluation, pair)]
        parts.append(_gallery(figures, "pairs", "Images of the most confused pairs", tiles))
    parts.append("### Highest losses\n")
    marked = torch.zeros_like(predictions.hits)
    if evaluation.split != "train" and predictions.top_k(1) >= TRUSTED:  # else they say little
        marked = likely_label_errors(predictions.probs, predictions.labels)
        parts.append(
            f"{int(marked.sum()):,} images are confidently given another class than their label "
            "(confident learning, Northcutt et al. 2021). The label may be wrong, or the network; "
            "those among the highest losses are marked with a question mark.\n"
        )
    worst = predictions.losses.argsort(descending=True, stable=True)[:HIGHEST_LOSSES].tolist()
    table = _loss_table(evaluation, worst, marked)
    if not with_images:
        return "\n".join([*parts, table])
    tiles = [
        tile_of(predictions, evaluation.images, names.fine, index, "  ?" if marked[index] else "")
        for index in worst
    ]
    parts += [
        _gallery(figures, "losses", "The images with the highest loss", tiles),
        f"<details><summary>The same as a table</summary>\n\n{table}\n</details>\n",
    ]
    return "\n".join(parts)


def _loss_table(evaluation: Evaluation, indices: Sequence[int], marked: Tensor) -> str:
    names, predictions = evaluation.names.in_markdown.fine, evaluation.predictions
    rows = [
        (
            index,
            names[int(predictions.labels[index])] + (" ?" if marked[index] else ""),
            f"{predictions.losses[index]:.1f}",
            names[int(predictions.predicted[index])],
            f"{predictions.confidence[index]:.1%}",
        )
        for index in indices
    ]
    head = [f"Index in {evaluation.split}", "Label", "Loss", "Predicted", "Confidence"]
    return markdown_table(head, rows)


def _pair_table(pairs: Sequence[Pair], names: Names) -> str:
    rows = [
        (
            names.fine[pair.first],
            names.fine[pair.second],
            pair.forth,
            pair.back,
            names.superclass(pair.first)
            if names.superclass(pair.first) == names.superclass(pair.second)
            else f"{names.superclass(pair.first)} / {names.superclass(pair.second)}",
        )
        for pair in pairs
    ]
    return markdown_table(["A", "B", "A taken for B", "B taken for A", "Superclass"], rows)


def _pair_tiles(evaluation: Evaluation, pair: Pair) -> list[Tile]:
    """Return up to four images of a pair that were taken for the other class, surest first."""
    predictions = evaluation.predictions
    of_pair = [
        ((predictions.labels == label) & (predictions.predicted == other)).nonzero().flatten()
        for label, other in ((pair.first, pair.second), (pair.second, pair.first))
    ]
    ordered = [part[predictions.confidence[part].argsort(descending=True)] for part in of_pair]
    forth, back = (part.tolist() for part in ordered)
    chosen = (forth[: max(2, 4 - len(back))] + back)[:4]
    names = evaluation.names.fine
    return [tile_of(predictions, evaluation.images, names, index) for index in chosen]


def gallery_section(evaluation: Evaluation, figures: Figures) -> str:
    """Return right and wrong answers drawn at random, and where the network looked."""
    predictions, names = evaluation.predictions, evaluation.names
    draw = random.Random(0)
    hits = predictions.hits
    right, wrong = (which.nonzero().flatten().tolist() for which in (hits, ~hits))
    shown = draw.sample(right, min(EACH_KIND, len(right)))
    shown += draw.sample(wrong, min(EACH_KIND, len(wrong)))
    tiles = [tile_of(predictions, evaluation.images, names.fine, index) for index in shown]
    heated = draw.sample(right, min(HEATED // 2, len(right)))
    heated += draw.sample(wrong, min(HEATED - len(heated), len(wrong)))
    pictures = [tile_of(predictions, evaluation.images, names.fine, index) for index in heated]
    heats = grad_cam(evaluation.bundle, evaluation.images[heated], predictions.predicted[heated])
    looked = [
        Tile(tile.image, "", tile.is_right, heat)
        for tile, heat in zip(pictures, heats, strict=True)
    ]
    return "\n".join(
        [
            "Drawn at random, the right ones first; wrong answers have an orange frame and say "
            "what the picture was taken for, with the confidence.\n",
            _gallery(figures, "answers", "Right and wrong answers drawn at random", tiles),
            "### Where it looked\n",
            "Grad-CAM: what is bright spoke for the answer. The maps have a few cells a side.\n",
            _gallery(figures, "gradcam", "Pictures and their heat maps", pictures + looked),
        ]
    )


def _gallery(figures: Figures, name: str, alt: str, tiles: Sequence[Tile]) -> str:
    if not tiles:
        return "There are none.\n"
    return figures.add(
        name,
        alt,
        gallery_size(tiles),
        lambda figure: draw_gallery(figure, tiles),
        has_photographs=True,
    )


def confidence_section(evaluation: Evaluation, figures: Figures) -> str:
    """Return calibration, confidence and risk."""
    predictions, calibration = evaluation.predictions, evaluation.bundle.calibration
    error = calibration_error(predictions.raw_confidence, predictions.hits)
    lines = [f"Expected calibration error as trained: {error:.1%}."]
    if predictions.is_calibrated:
        error = calibration_error(predictions.confidence, predictions.hits)
        source = plain(calibration.source)
        lines.append(f"With temperature {predictions.temperature:.3f} ({source}): {error:.1%}.")
    else:
        how = "as this one has" if evaluation.bundle.config.val_size else "with `--val-size 5000`"
        lines.append(
            f"Not calibrated: `{CALIBRATE}` fits a temperature on images that a run has held out, "
            f"{how}; the test set never does."
        )
    if evaluation.split == "val":
        lines.append(
            "These images chose the weights, and may have set the temperature: both flatter."
        )
    coverage, risk = risk_coverage(predictions.confidence, predictions.hits)
    for most in RISKS:
        allowed = coverage[risk <= most]
        share = float(allowed.max()) if len(allowed) else 0.0
        lines.append(
            f"With {most:.0%} errors it could answer {share:.0%} of these images, its surest."
        )
    return "\n".join(
        [
            "".join(f"- {line}\n" for line in lines),
            figures.add(
                "confidence",
                "Reliability diagram, histogram of confidence, and risk against coverage",
                (13, 4.2),
                lambda figure: charts.draw_confidence(figure, predictions),
            ),
        ]
    )


def corruptions_section(evaluation: Evaluation, figures: Figures) -> str:
    """Return top-1 on corrupted images."""
    curves = evaluation.corruptions
    severities = sorted({severity for curve in curves.values() for severity in curve})
    rows = [
        (name, *(f"{curve[severity]:.1%}" for severity in severities))
        for name, curve in curves.items()
    ]
    shares = [top1 for curve in curves.values() for top1 in curve.values()]
    spread = max((top1 * (1 - top1) / evaluation.corrupted) ** 0.5 for top1 in shares)
    return "\n".join(
        [
            f"Top-1 on the same {evaluation.corrupted:,} images of {evaluation.split}, as many of "
            f"each class, corrupted with the constants of CIFAR-10-C (Hendrycks and Dietterich "
            f"2019). The standard error of a figure is up to {100 * spread:.1f} points.\n",
            figures.add(
                "corruptions",
                "Top-1 against the severity of noise, blur, low contrast and JPEG",
                (8, 4.5),
                lambda figure: charts.draw_corruptions(figure, curves),
            ),
            markdown_table(
                ["Corruption", *(f"Severity {s}" if s else "Clean" for s in severities)], rows
            ),
        ]
    )
