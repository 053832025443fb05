"""Runs side by side: which settings differ, what each reached, and whether that is chance."""

import json
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from resnet_cifar100.analysis.figures import comparison_size, draw_comparison, draw_top1
from resnet_cifar100.analysis.groups import (
    Group,
    Run,
    differing_settings,
    group_runs,
    name_of,
    settings_of,
)
from resnet_cifar100.analysis.material import Figures, clear_report
from resnet_cifar100.analysis.significance import holm, p_value
from resnet_cifar100.analysis.webpage import render_page
from resnet_cifar100.constants import SYNTHETIC
from resnet_cifar100.engine.record import load_record
from resnet_cifar100.errors import CheckpointError, ConfigError
from resnet_cifar100.markdown import (
    SYNTHETIC_WARNING,
    code,
    commit,
    duration,
    filled_columns,
    markdown_table,
    plain,
)
from resnet_cifar100.storage import replace_file


def compare(folders: Sequence[Path], out: Path) -> tuple[list[Group], list[str]]:
    """Group the runs in `folders` by their settings, and write what compares the groups to `out`.

    Returns the groups, and a sentence for each folder that is left out.

    Raises:
        CheckpointError: where fewer than two of the folders hold a run with a finished epoch.
        ConfigError: for fewer than two folders, the same run twice, or runs on different data sets.
    """
    if len(folders) < 2:
        raise ConfigError("name at least two folders of runs to compare")
    runs, faults = _load(folders)
    if len(runs) < 2:
        raise CheckpointError(f"fewer than two runs to compare: {', '.join(faults)}")
    _check(runs)
    groups = group_runs(runs)
    left_out = [f"Left out: {fault}." for fault in faults]
    write_comparison(groups, out, left_out)
    return groups, left_out


def write_comparison(groups: Sequence[Group], out: Path, left_out: Sequence[str] = ()) -> None:
    """Write report.md, report.html and compare.json of the groups, of one data set, to `out`."""
    clear_report(out)
    replace_file(out / "compare.json", json.dumps(_facts(groups), indent=2) + "\n")
    is_synthetic = groups[0].runs[0].record.title == SYNTHETIC
    markdown = _render(groups, left_out, Figures(out, is_synthetic=is_synthetic))
    replace_file(out / "report.md", markdown)
    replace_file(out / "report.html", render_page(markdown, out))


def _load(folders: Sequence[Path]) -> tuple[list[Run], list[str]]:
    """Return the runs that have something to compare, and what is wrong with the others."""
    runs, faults = [], []
    for folder in folders:
        try:
            run = Run(folder, load_record(folder))
        except CheckpointError:
            faults.append(f"{name_of(folder)} does not hold the record of a run")
            continue
        if run.record.history.epochs:
            runs.append(run)
        else:
            faults.append(f"{run.name} has no finished epoch")
    return runs, faults


def _check(runs: Sequence[Run]) -> None:
    for index, run in enumerate(runs):
        if run.record.title != runs[0].record.title:
            raise ConfigError(
                f"{runs[0].folder} is a run on {runs[0].record.title}, {run.folder} one on "
                f"{run.record.title}: their figures cannot be compared"
            )
        for other in runs[:index]:
            if run.record.history == other.record.history:
                raise ConfigError(f"{other.folder} and {run.folder} are the same run")


def mean_and_spread(values: Sequence[float]) -> str:
    """Return the mean in per cent, with the standard deviation where there are several."""
    if not values:
        return "not finished"
    mean = f"{statistics.mean(values):.2%}"
    return f"{mean} +- {100 * statistics.stdev(values):.2f}" if len(values) > 1 else mean


def group_rows(groups: Sequence[Group]) -> list[dict[str, str]]:
    """Return what the table of the groups says of each, by column."""
    first, rows = groups[0], []
    chances, corrected = _chances(groups)
    if sum(chance is not None for chance in chances) < 2:  # a single one needs no correction
        corrected = [None] * len(groups)
    for group, chance, among in zip(groups, chances, corrected, strict=True):
        histories = [run.record.history for run in group.counted]
        records = [run.record for run in group.counted]
        gaps = [r.train_eval_gap for r in records if r.train_eval_gap is not None]
        ahead = ""
        if group is not first and group.top1 and first.top1:
            ahead = f"{100 * (statistics.mean(group.top1) - statistics.mean(first.top1)):+.2f}"
        rows.append(
            {
                "Settings": group.title,
                "Runs": str(len(group.counted)),
                "Test top-1": mean_and_spread(group.top1),
                "Against A": ahead,
                "p": "" if chance is None else f"{chance:.2g}",
                "p, Holm": "" if among is None else f"{among:.2g}",
                "Gap": f"{100 * statistics.mean(h.top1_gap for h in histories):.1f}",
                "Train/test gap": f"{100 * statistics.mean(gaps):.1f}" if gaps else "",
                "Time": duration(statistics.mean(h.train_seconds for h in histories)),
                "Val top-1, highest": mean_and_spread(group.val_top1) if group.val_top1 else "",
            }
        )
    return rows


def _chances(groups: Sequence[Group]) -> tuple[list[float | None], list[float | None]]:
    """Return p of each group against the first, and as it counts among several; None for none."""
    chances = [None, *(p_value(groups[0].top1, group.top1) for group in groups[1:])]
    corrected = iter(holm([chance for chance in chances if chance is not None]))
    return chances, [None if chance is None else next(corrected) for chance in chances]


def _facts(groups: Sequence[Group]) -> list[dict[str, Any]]:
    return [
        {
            "name": group.title,
            "dataset": group.runs[0].record.title,
            "runs": [str(run.folder) for run in group.counted],
            "seeds": [run.record.config.seed for run in group.counted],
            "test_top1": group.top1,
            "mean": statistics.mean(group.top1) if group.top1 else None,
            "standard_deviation": statistics.stdev(group.top1) if len(group.top1) > 1 else None,
            "val_top1": group.val_top1,
            "p_against_first": chance,
            "p_holm": corrected,
        }
        for group, chance, corrected in zip(groups, *_chances(groups), strict=True)
    ]


def _render(groups: Sequence[Group], left_out: Sequence[str], figures: Figures) -> str:
    runs = [run for group in groups for run in group.runs]
    title = runs[0].record.title
    drawn = [(group.title, [run.record for run in group.counted]) for group in groups]
    curves = figures.add(
        "curves",
        "Top-1 of the runs on held-out or test images over epochs",
        comparison_size(len(groups)),
        lambda figure: draw_comparison(figure, drawn),
    )
    dots = any(group.top1 for group in groups) and figures.add(
        "top1",
        "Test top-1 of every finished run",
        (12, 1.1 + 0.32 * len(groups)),
        lambda figure: draw_top1(figure, [(group.title, group.top1) for group in groups]),
    )
    rows = [{**row, "Settings": plain(row["Settings"])} for row in group_rows(groups)]
    parts = [
        f"# {len(runs)} runs on {title} compared\n",
        SYNTHETIC_WARNING if title == SYNTHETIC else "",
        "## Results\n",
        dots,
        markdown_table(*filled_columns(rows)),
        "Mean and standard deviation of the test top-1 of the weights kept, over runs that differ "
        "in their seeds alone, one a seed. Against A: points more than the first. p: the chance of "
        "means so far apart without a difference (Welch's t-test, two-sided); p, Holm: the same, "
        "corrected for the number of comparisons (Holm 1979). Gap: train less "
        "held-out top-1 at the end, in points, as counted while training; train/test gap: of the "
        "weights kept, on training images as they are. Time: training. The choice of 10,000 test "
        "images gives a figure a standard error of up to 0.5 points; less against another on the "
        "same images.\n",
        "Choose settings by val top-1, for which runs hold images out (`--val-size 5000`). p is "
        "for the comparison that you report: the test set may choose nothing.\n",
        "".join(f"- {plain(caution)}\n" for caution in [*left_out, *cautions(groups)]),
        "## Curves\n",
        curves,
        "## Settings that differ\n",
        _difference_table(groups),
        "## Runs\n",
        _run_table(groups),
    ]
    return "\n".join(part for part in parts if part)


def cautions(groups: Sequence[Group]) -> list[str]:
    """Return what the table does not show: runs that do not count, other code, other machines.

    And, where somebody else made the groups, other settings within one, which teacher for example.
    """
    said: dict[str, list[str]] = {}
    for group in groups:
        for sentence in _group_cautions(group):
            said.setdefault(sentence, []).append(group.letter)
    lines = [f"{', '.join(letters)}: {sentence}" for sentence, letters in said.items()]
    runs = [run for group in groups for run in group.runs]
    # Older records do not say how many processes trained them: it was one each.
    stamps = [{"processes": 1, **stamp} for run in runs for stamp in run.record.environments]
    if any(stamp.get("uncommitted_changes") for stamp in stamps):
        lines.append("The code of some runs had uncommitted changes.")
    for key in ("commit", "torch", "cpu", "gpu", "threads", "processes"):
        if len({str(stamp.get(key)) for stamp in stamps}) > 1:
            lines.append(f"The runs differ in their {key}.")
    return lines


def _group_cautions(group: Group) -> Iterator[str]:
    if unfinished := sum(run.top1 is None for run in group.runs):
        what = "which do not count" if group.top1 else "shown as far as they went"
        yield f"{unfinished} not finished, {what}."
    for run in group.runs:
        if run.top1 is not None and run not in group.counted:
            yield f"{run.name} is left out: seed {run.record.config.seed} has a run already."
    for run in group.counted:
        if run.record.is_changed:
            yield f"{run.name} was resumed with other settings, but counts by the last ones."
    for name in differing_settings([run.record for run in group.runs]):
        yield f"its runs are not all of the same {name}."
    stamps = [stamp for run in group.counted for stamp in run.record.environments]
    codes = {(stamp.get("commit"), stamp.get("uncommitted_changes")) for stamp in stamps}
    if len(group.counted) > 1 and (len(codes) > 1 or any(is_dirty for _, is_dirty in codes)):
        what = "runs of different commits, or with uncommitted changes"
        yield f"{what}, count as one experiment, though their code may differ."


def _difference_table(groups: Sequence[Group]) -> str:
    records = [group.runs[0].record for group in groups]
    names = differing_settings(records)
    if not names:
        return "None but the seed.\n"
    rows = [
        (code(name), *(code(settings_of(record)[name]) for record in records)) for name in names
    ]
    return markdown_table(["Setting", *(group.letter for group in groups)], rows)


def _run_table(groups: Sequence[Group]) -> str:
    rows = [
        (
            group.letter,
            plain(run.name),
            run.record.config.seed,
            plain(run.record.status) if run.top1 is None else f"{run.top1:.2%}",
            f"{max(run.record.history.held_out_top1):.2%} ({run.record.history.split})",
            f"{run.record.history.epochs[-1]['train/top1']:.2%}",
            len(run.record.history.epochs),
            duration(run.record.history.train_seconds),
            plain(run.record.environments[-1].get("gpu") or run.record.environments[-1].get("cpu")),
            commit(run.record.environments[-1]),
        )
        for group in groups
        for run in group.runs
    ]
    head = ["Group", "Run", "Seed", "Test top-1", "Highest on the way", "Train top-1", "Epochs"]
    return markdown_table([*head, "Training time", "Hardware", "Commit"], rows)
