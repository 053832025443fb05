"""The report of a run, written once as Markdown; webpage.py makes HTML of it."""

from resnet_cifar100.analysis import charts, sections
from resnet_cifar100.analysis.calibration import calibration_error
from resnet_cifar100.analysis.figures import CURVES_SIZE, draw_curves
from resnet_cifar100.analysis.findings import (
    advise_on_predictions,
    describe_corruptions,
    describe_predictions,
)
from resnet_cifar100.analysis.material import Figures, Material
from resnet_cifar100.constants import SYNTHETIC
from resnet_cifar100.engine.advice import advise
from resnet_cifar100.engine.log_page import (
    analysis,
    environment_tables,
    epoch_table,
    part_table,
    recommendations,
    settings_table,
)
from resnet_cifar100.markdown import (
    SYNTHETIC_WARNING,
    code,
    commit,
    duration,
    markdown_table,
    plain,
)
from resnet_cifar100.models.summary import summarize


def render_report(material: Material, figures: Figures) -> str:
    """Return the whole report, its figures drawn; what is not known of the run is left out."""
    config = material.config
    parts = [
        f"# {plain(config.model)} on {material.title}: report of {plain(material.name)}\n",
        SYNTHETIC_WARNING if material.title == SYNTHETIC else "",
        _identity(material),
        _section("At a glance", markdown_table(["Metric", "Value"], glance(material))),
        _section("What stands out", _findings(material)),
        _section("Recommendations", _advice(material)),
        _section("Training", _training(material, figures)),
    ]
    if evaluation := material.evaluation:
        parts += [
            _section("Classes", sections.classes_section(evaluation, figures)),
            _section(
                "Mistakes",
                sections.mistakes_section(evaluation, figures, with_images=material.with_images),
            ),
        ]
        if material.with_images:
            parts.append(_section("Answers", sections.gallery_section(evaluation, figures)))
        parts.append(_section("Confidence", sections.confidence_section(evaluation, figures)))
        if evaluation.corruptions:
            text = sections.corruptions_section(evaluation, figures)
            parts.append(_section("Corrupted pictures", text))
    parts += [
        _section("Network", _network(material, figures)),
        _section("Run", _run(material)),
    ]
    return "\n".join(part for part in parts if part)


def glance(material: Material) -> list[tuple[str, str]]:
    """Return the figures that stand at the top, as (metric, value)."""
    rows: list[tuple[str, str]] = []
    evaluation, record = material.evaluation, material.record
    if evaluation:
        predictions, split = evaluation.predictions, evaluation.split
        error = calibration_error(predictions.confidence, predictions.hits)
        calibrated = " (calibrated)" if predictions.is_calibrated else ""
        rows += [
            (f"{split} top-1", f"{predictions.top_k(1):.2%}"),
            (f"{split} top-5", f"{predictions.top_k(5):.2%}"),
            ("right superclass", f"{evaluation.superclass_top1:.2%}"),
            (f"calibration error{calibrated}", f"{error:.1%}"),
        ]
    elif record and record.result:
        rows += [
            ("test top-1", f"{record.result['test/top1']:.2%}"),
            ("test top-5", f"{record.result['test/top5']:.2%}"),
        ]
    if record and record.history.epochs:
        rows.append(("generalisation gap", f"{100 * record.history.top1_gap:.1f} points"))
        if record.train_eval_gap is not None:
            gap = f"{100 * record.train_eval_gap:.1f} points"
            rows.append(("the same, training images as they are", gap))
        rows.append(("training time", duration(record.history.train_seconds)))
    summary = summarize(material.config.model_config)
    rows.append(("parameters", f"{summary.parameters / 1e6:.2f} M"))
    rows.append(("multiply-adds", f"{summary.multiply_adds / 1e6:.0f} M"))
    return rows


def _section(title: str, text: str) -> str:
    return f"## {title}\n\n{text}" if text else ""


def _identity(material: Material) -> str:
    config, stamp = material.config, material.environments[-1]
    hardware = stamp.get("gpu") or f"{stamp.get('cpu')}, {stamp.get('threads')} threads"
    facts = [
        f"Recipe {code(config.recipe)}, seed {config.seed}",
        f"commit {commit(stamp)}",
        f"torch {plain(stamp.get('torch'))}",
        plain(hardware),
    ]
    if material.evaluation:
        predictions = material.evaluation.predictions
        facts.append(f"{len(predictions.labels):,} {material.evaluation.split} images")
    if material.record and material.record.status != "finished":
        facts.append(f"**{plain(material.record.status)}**")
    text = " \N{MIDDLE DOT} ".join(facts) + "\n"
    if not material.evaluation:
        text += "\nThe weights are not here, so nothing is said of classes and confidence.\n"
    return text


def _findings(material: Material) -> str:
    lines = []
    if evaluation := material.evaluation:
        lines += describe_predictions(
            evaluation.predictions,
            evaluation.confusion,
            evaluation.superclass_top1,
            evaluation.names,
        )
        lines += describe_corruptions(evaluation.corruptions)
    text = "".join(f"- {line}\n" for line in lines)
    if material.record and material.record.history.epochs:
        text += analysis(material.record)
    return text


def _advice(material: Material) -> str:
    record, evaluation = material.record, material.evaluation
    advice = advise(record) if record else []
    if evaluation and evaluation.split != "train":
        advice += advise_on_predictions(
            evaluation.predictions,
            evaluation.confusion,
            evaluation.names,
            material.title,
            has_held_out=bool(evaluation.bundle.config.val_size),
        )
    return recommendations(advice, record)


def _training(material: Material, figures: Figures) -> str:
    record = material.record
    if record is None:
        return "The record of the run is not beside these weights; `--record RUN` names it.\n"
    if not record.history.epochs:
        return "No epoch is finished yet.\n"
    curves = figures.add(
        "curves",
        "Loss, accuracy, generalisation gap and learning rate over the epochs",
        CURVES_SIZE,
        lambda figure: draw_curves(figure, record),
    )
    if record.config.early_sizes:
        sizes = ", ".join(f"{size}" for size in record.config.early_sizes)
        curves += (
            f"\nThe first epochs train on images of {sizes} pixels, and train top-1 is measured on "
            f"those; the {record.history.split} curve is measured at {record.config.image_size} "
            "throughout.\n"
        )
    table = epoch_table(record)
    return f"{curves}\n<details><summary>Every epoch</summary>\n\n{table}\n</details>\n"


def _network(material: Material, figures: Figures) -> str:
    text = part_table(material.config.model_config)
    if not material.evaluation:
        return text
    filters = charts.first_filters(material.evaluation.bundle.model)
    text += "\n### Filters of the first layer\n\n"
    return text + figures.add(
        "filters",
        "The filters of the first layer as small colour pictures",
        charts.filters_size(filters),
        lambda figure: charts.draw_filters(figure, filters),
    )


def _run(material: Material) -> str:
    here = material.analysed_with
    files = "`metrics.json`"
    if material.evaluation:
        files += ", `per_class.csv`, `per_superclass.csv`, `confusion.csv`"
        files += "; where it was made, `predictions.npz` too"
    return (
        f"<details><summary>Every setting</summary>\n\n{settings_table(material.config)}\n"
        f"</details>\n\n{environment_tables(material.environments)}\n"
        f"Analysed with commit {commit(here)}, torch {here['torch']} on "
        f"{here['gpu'] or here['cpu']}. In files beside this page: {files}.\n"
    )
