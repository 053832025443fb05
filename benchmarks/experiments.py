"""Tables of whole trainings: what is trained, in which order, and the page that compares it.

    python -m benchmarks.experiments TABLE [--minutes 90] [--out records/NAME]

TABLE is ablation, gpu-ablation, gpu, zoo or zoo-cpu.

Each run is one call of train.py. The first seed of every experiment comes first, then the second of
every one, so that the most is known at any time. A table that was stopped, by Ctrl-C, by --minutes
or by the machine, goes on where it stopped; what is finished is not trained again, nor is what has
a record, except for a teacher who is still to teach and whose network is not here. A run or record
of other settings than its row has stops the table before anything is trained or written.
"""

import argparse
import dataclasses
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from benchmarks.jobs import (
    Job,
    check_devices,
    check_more,
    check_settings,
    flags_that_change,
    is_finished,
    is_left,
    jobs_of,
)
from benchmarks.trainings import ON_GPU, TABLES, Experiment
from resnet_cifar100.analysis.compare import group_rows, write_comparison
from resnet_cifar100.analysis.groups import Group, Run, differing_settings, letters
from resnet_cifar100.cli.screen import say, show_fault
from resnet_cifar100.constants import SYNTHETIC
from resnet_cifar100.errors import ConfigError, ProjectError
from resnet_cifar100.markdown import (
    SYNTHETIC_WARNING,
    code,
    commit,
    filled_columns,
    markdown_table,
    plain,
)
from resnet_cifar100.storage import replace_file

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results.md"
STOPPED = (8, 130, 143)  # exit codes of a training whose time was up, or that was told to stop


def train(job: Job, deadline: float) -> None:
    """Train until the end or the deadline, in seconds of the monotonic clock.

    Raises:
        RuntimeError: where the training failed.
        KeyboardInterrupt: where it was stopped, its state saved.
    """
    if job.teacher and not is_finished(job.teacher):
        raise RuntimeError(f"its teacher {job.teacher} has not finished")
    say(f"\n{job.experiment.name}, seed {job.seed}: {shlex.join(['python', *job.command[1:]])}")
    with subprocess.Popen(job.command, cwd=ROOT) as process:
        try:
            process.wait(max(1.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)
            process.wait()
            return
        except KeyboardInterrupt:
            process.send_signal(signal.SIGTERM)
            process.wait()
            raise
    if process.returncode in STOPPED:
        raise KeyboardInterrupt
    if process.returncode:
        raise RuntimeError(f"train.py ended with exit code {process.returncode}")


def write_page(name: str, jobs: Sequence[Job], out: Path, added: Sequence[str]) -> None:
    """Write the records and the comparison of what is finished to `out`, and the table in docs.

    With `added` flags that change settings, or a record that is not published, docs keep what they
    have.
    """
    order = sorted(TABLES[name], key=lambda one: one.name != "reference")  # that comes first
    groups: list[Group] = []
    letter = letters()
    for experiment in order:
        runs = []
        for job in jobs:
            if job.experiment == experiment and (result := job.result):
                dataclasses.replace(result, config=result.config.without_folders()).save(job.record)
                runs.append(Run(job.record, result))
        if runs:
            groups.append(Group(next(letter), experiment.name, tuple(runs)))
    if not groups:
        return
    if sum(len(group.runs) for group in groups) > 1:
        write_comparison(groups, out)
    table = _table(order, groups) + _cautions(groups)
    is_real = all(run.record.title != SYNTHETIC for group in groups for run in group.runs)
    warning = "" if is_real else f"{SYNTHETIC_WARNING}\n"
    note = f"All with {code(shlex.join(added))} besides.\n\n" if added else ""
    replace_file(out / "README.md", f"# Table: {name}\n\n{warning}{note}{table}")
    if is_real and not added and out.resolve().parent == ROOT / "records":
        table += f"\nRecord: [{out.name}](../records/{out.name}/README.md). {_origin(groups)}\n"
        replace_file(RESULTS, with_table(RESULTS.read_text(), name, table))


def with_table(page: str, name: str, table: str) -> str:
    """Return the page with `table` between its two marks of this name."""
    first, last = f"<!-- table: {name} -->\n", "<!-- end of table -->"
    start = page.index(first) + len(first)
    return f"{page[:start]}\n{table}\n{page[page.index(last, start) :]}"


def _table(experiments: Sequence[Experiment], groups: Sequence[Group]) -> str:
    """Return a row a group: what compare says of it, its flags, size and held-out top-1.

    All are compared with the first of `experiments`, once that has a run, and its flags are theirs.
    Columns of which nothing is to be said are left out.
    """
    flags = {experiment.name: experiment.flags for experiment in experiments}
    baseline = experiments[0]
    sizes_differ = len({run.record.parameters for group in groups for run in group.runs}) > 1
    rows = []
    for group, row in zip(groups, group_rows(groups), strict=True):
        own = flags[group.name].removeprefix(f"{baseline.flags} ").removeprefix(f"{ON_GPU} ")
        del row["Settings"]
        if groups[0].name != baseline.name:
            row |= {"Against A": "", "p": "", "p, Holm": ""}
        size = f"{group.runs[0].record.parameters / 1e6:.2f} M" if sizes_differ else ""
        rows.append({"Experiment": group.name, "Flags": code(own), "Parameters": size, **row})
    head, cells = filled_columns(rows)
    head = [f"Against {baseline.name}" if name == "Against A" else name for name in head]
    return markdown_table(head, cells)


def _cautions(groups: Sequence[Group]) -> str:
    """Return a line for each setting but the seed that the runs of a row do not share.

    The flags being the same, that is what teacher they had: its weights, not where they lay.
    """
    return "".join(
        f"\nThe runs of {group.name} are not all of the same {name}.\n"
        for group in groups
        for name in differing_settings([run.record for run in group.runs])
    )


def _origin(groups: Sequence[Group]) -> str:
    """Name the processors or GPUs, and the commits, that the runs were trained on."""
    stamps = [stamp for group in groups for run in group.runs for stamp in run.record.environments]
    hardware = dict.fromkeys(plain(stamp.get("gpu") or stamp.get("cpu")) for stamp in stamps)
    commits = dict.fromkeys(map(commit, stamps))
    return f"Hardware: {', '.join(hardware)}. Commits: {', '.join(commits)}."


def _newest_record(name: str) -> Path:
    """Return the folder of this table's record, that of an earlier day if there is one."""
    earlier = sorted(Path("records").glob(f"????-??-??_{name}"))
    return earlier[-1] if earlier else Path("records") / f"{date.today().isoformat()}_{name}"


def main(argv: Sequence[str] | None = None) -> int:
    """Train what is left of a table; return the exit code: 1 where a training failed."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # stop as at Ctrl-C
    try:
        return _train_table(*_parser().parse_known_args(argv))  # what is left goes to train.py
    except ProjectError as error:
        show_fault(str(error))
        return error.exit_code
    except SystemExit as stop:  # the help was shown (0), or what is wrong with the flags
        return ConfigError.exit_code if stop.code else 0
    except KeyboardInterrupt:
        say("Stopped; the same call goes on from here.")
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Train a table of experiments, or go on with it.", allow_abbrev=False
    )
    parser.add_argument("table", choices=list(TABLES))
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after so long")
    parser.add_argument(
        "--out",
        type=Path,
        help="folder of the record; records/DATE_TABLE, with other settings RUNS/record",
    )
    parser.add_argument("--runs", type=Path, help="folder of the runs; checkpoints/TABLE")
    parser.add_argument("--only", nargs="+", help="some of them, as their folders are called")
    return parser


def _train_table(asked: argparse.Namespace, more: Sequence[str]) -> int:
    deadline = time.monotonic() + 60 * asked.minutes
    experiments = TABLES[asked.table]
    names = [experiment.folder for experiment in experiments]
    if unknown := {*(asked.only or ())} - {*names}:
        raise ConfigError(f"--only must be of {', '.join(names)}, got {', '.join(sorted(unknown))}")
    chosen = [one for one in experiments if one.folder in (asked.only or names)]
    check_more(chosen, more)
    added = flags_that_change(experiments, more)
    runs = asked.runs or Path("checkpoints") / asked.table
    out = asked.out or (runs / "record" if added else _newest_record(asked.table))
    jobs = list(jobs_of(experiments, runs, out, more))
    check_settings(jobs)
    todo = [job for job in jobs if job.experiment in chosen and is_left(job, jobs)]
    if asked.minutes <= 0:
        todo = []
    check_devices(todo)
    if not todo:
        write_page(asked.table, jobs, out, added)
    failed = 0
    for job in todo:
        try:
            train(job, deadline)
        except RuntimeError as error:
            failed += 1
            say(f"{job.experiment.name}, seed {job.seed}, failed: {error}.")
        write_page(asked.table, jobs, out, added)
        if time.monotonic() >= deadline:
            break
    left = sum(is_left(job, jobs) for job in jobs)
    place = f"; {out}/README.md has the table" if left < len(jobs) else ""
    say(f"{len(jobs) - left} of {len(jobs)} trainings are finished{place}.")
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
