"""Tables of whole trainings: what is trained, in which order, and the page that compares it.

    python -m benchmarks.experiments ablation|gpu|zoo [--minutes 90] [--out records/NAME]

Each run is one call of train.py. The first seed of every experiment comes first, then the second of
every one, so that the most is known at any time. A table that was stopped, by Ctrl-C, by --minutes
or by the machine, goes on where it stopped; what is finished is not trained again.
"""

import argparse
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from benchmarks.trainings import TABLES, Experiment
from resnet_cifar100.analysis.compare import HEAD, Group, Run, compare, group_rows, mean_and_spread
from resnet_cifar100.cli.screen import say
from resnet_cifar100.engine.record import load_record
from resnet_cifar100.engine.report import SYNTHETIC_WARNING, code, markdown_table
from resnet_cifar100.storage import replace_file

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results.md"


@dataclass(frozen=True)
class Job:
    """One training: an experiment with a seed, and the folder of its run."""

    experiment: Experiment
    seed: int
    folder: Path

    @property
    def is_finished(self) -> bool:
        """Whether there is nothing left to train."""
        if not (self.folder / "run.json").exists():
            return False
        return load_record(self.folder).status == "finished"

    def command(self, more: Sequence[str]) -> list[str]:
        """Return the call that starts this training, or goes on with it."""
        flags = [*shlex.split(self.experiment.flags), *more]
        if self.experiment.teacher:
            teacher = self.folder.parents[1] / self.experiment.teacher / "seed0"
            flags += ["--teacher", str(teacher / "best_model.pth")]
        flags += ["--checkpoint-path", str(self.folder / "best_model.pth")]
        flags += ["--log-file", str(self.folder / "logs.md"), "--run-dir", str(self.folder)]
        return [sys.executable, "train.py", *flags, "--seed", str(self.seed), "--resume"]


def jobs_of(experiments: Sequence[Experiment], folder: Path) -> Iterator[Job]:
    """Yield all trainings, seed by seed."""
    for seed in range(max(experiment.seeds for experiment in experiments)):
        for experiment in experiments:
            if seed < experiment.seeds:
                yield Job(experiment, seed, folder / experiment.folder / f"seed{seed}")


def train(job: Job, more: Sequence[str], deadline: float) -> bool:
    """Train until the end or the deadline, in seconds of the monotonic clock; return if finished.

    Raises:
        subprocess.CalledProcessError: where the training failed.
    """
    command = job.command(more)
    say(f"\n{job.experiment.name}, seed {job.seed}: {shlex.join(['python', *command[1:]])}")
    with subprocess.Popen(command, cwd=ROOT) as process:
        try:
            process.wait(max(1.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)
            process.wait()
            return False
        except KeyboardInterrupt:  # the training has it too, and saves its state
            process.wait()
            raise
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return True


def write_page(name: str, jobs: Sequence[Job], out: Path) -> None:
    """Write the records and the comparison of what is finished to `out`, and the table in docs."""
    order = list(TABLES[name])
    done = sorted(
        (job for job in jobs if job.is_finished), key=lambda job: order.index(job.experiment)
    )
    groups = []
    for experiment in dict.fromkeys(job.experiment for job in done):
        mine = [job for job in done if job.experiment == experiment]
        runs = tuple(Run(job.folder, load_record(job.folder)) for job in mine)
        groups.append(Group(experiment.name, runs))
        for job, run in zip(mine, runs, strict=True):
            run.record.save(out / experiment.folder / f"seed{job.seed}")
    if len(done) > 1:
        compare([out / job.experiment.folder / f"seed{job.seed}" for job in done], out)
    if groups:
        table = _table([job.experiment for job in done], groups)
        is_real = all(run.record.title != "SYNTHETIC" for group in groups for run in group.runs)
        warning = "" if is_real else f"{SYNTHETIC_WARNING}\n"
        replace_file(out / "README.md", f"# Table: {name}\n\n{warning}{table}")
        if is_real and out.resolve().is_relative_to(ROOT):
            replace_file(RESULTS, with_table(RESULTS.read_text(), name, table))


def with_table(page: str, name: str, table: str) -> str:
    """Return the page with `table` between its two marks of this name.

    Raises:
        ValueError: where the page has no such marks.
    """
    first, last = f"<!-- table: {name} -->\n", "<!-- end of table -->"
    start = page.index(first) + len(first)
    return f"{page[:start]}\n{table}\n{page[page.index(last, start) :]}"


def _table(experiments: Sequence[Experiment], groups: Sequence[Group]) -> str:
    """Return a row a group: what compare says of it, its flags, and its held-out top-1."""
    flags = {experiment.name: experiment.flags for experiment in experiments}
    rows = []
    for group, (name, *cells) in zip(groups, group_rows(groups), strict=True):
        held_out = [
            max(epoch["val/top1"] for epoch in run.record.history.epochs)
            for run in group.runs
            if run.record.history.held_out == "val"
        ]
        rows.append(
            (name, code(flags[name]), *cells, mean_and_spread(held_out) if held_out else "")
        )
    return markdown_table(["Experiment", "Flags", *HEAD[1:], "Val top-1, highest"], rows)


def _newest_record(name: str) -> Path:
    """Return the folder of this table's record, that of an earlier day if there is one."""
    earlier = sorted(Path("records").glob(f"????-??-??_{name}"))
    return earlier[-1] if earlier else Path("records") / f"{date.today().isoformat()}_{name}"


def main(argv: Sequence[str] | None = None) -> int:
    """Train what is left of a table; return how many of its trainings failed."""
    parser = argparse.ArgumentParser(description="Train a table of experiments, or go on with it.")
    parser.add_argument("table", choices=list(TABLES))
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after so long")
    parser.add_argument("--out", type=Path, help="folder of the record; records/DATE_TABLE")
    parser.add_argument("--runs", type=Path, help="folder of the runs; checkpoints/TABLE")
    parser.add_argument("--only", nargs="+", help="names of experiments; all by default")
    asked, more = parser.parse_known_args(argv)  # what is left goes to train.py
    deadline = time.monotonic() + 60 * asked.minutes
    out = asked.out or _newest_record(asked.table)
    chosen = [e for e in TABLES[asked.table] if not asked.only or e.name in asked.only]
    jobs = list(jobs_of(chosen, asked.runs or Path("checkpoints") / asked.table))
    failed = 0
    for job in jobs:
        if job.is_finished:
            continue
        if time.monotonic() >= deadline:
            break
        try:
            if train(job, more, deadline):
                write_page(asked.table, jobs, out)
        except subprocess.CalledProcessError as error:
            failed += 1
            say(f"{job.experiment.name}, seed {job.seed}, failed: exit code {error.returncode}.")
    left = sum(not job.is_finished for job in jobs)
    say(f"{len(jobs) - left} of {len(jobs)} trainings are finished; {out}/README.md has the table.")
    return failed


if __name__ == "__main__":
    sys.exit(min(main(), 1))
