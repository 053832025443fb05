"""The trainings of a table: where each lies, what starts it, and whether it has a result."""

import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.trainings import Experiment
from resnet_cifar100.engine.record import RunRecord, load_record


@dataclass(frozen=True)
class Job:
    """One training: an experiment with a seed, the folder of its run, and that of its record."""

    experiment: Experiment
    seed: int
    folder: Path
    record: Path

    @property
    def result(self) -> RunRecord | None:
        """What is known of the finished run, from its folder or from its record."""
        for folder in (self.folder, self.record):
            if is_finished(folder):
                return load_record(folder)
        return None

    @property
    def teacher(self) -> Path | None:
        """The folder of the run that this one learns from, if it does."""
        name = self.experiment.teacher
        return self.folder.parents[1] / name / "seed0" if name else None

    def command(self, more: Sequence[str]) -> list[str]:
        """Return the call that starts this training, or goes on with it."""
        flags = [*shlex.split(self.experiment.flags), *more]
        if self.teacher:
            flags += ["--teacher", str(self.teacher / "best_model.pth")]
        flags += ["--checkpoint-path", str(self.folder / "best_model.pth")]
        flags += ["--log-file", str(self.folder / "logs.md"), "--run-dir", str(self.folder)]
        return [sys.executable, "train.py", *flags, "--seed", str(self.seed), "--resume"]


def is_finished(folder: Path) -> bool:
    """Whether the run in a folder has come to its end."""
    return (folder / "run.json").exists() and load_record(folder).status == "finished"


def jobs_of(experiments: Sequence[Experiment], runs: Path, records: Path) -> Iterator[Job]:
    """Yield all trainings, seed by seed."""
    for seed in range(max(experiment.seeds for experiment in experiments)):
        for experiment in experiments:
            if seed < experiment.seeds:
                place = Path(experiment.folder, f"seed{seed}")
                yield Job(experiment, seed, runs / place, records / place)


def is_left(job: Job, jobs: Sequence[Job]) -> bool:
    """Whether a training has no result yet, or is to teach one that has none."""
    if not job.result:
        return True
    is_to_teach = any(other.teacher == job.folder for other in jobs if not other.result)
    return is_to_teach and not is_finished(job.folder)
