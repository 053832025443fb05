"""The trainings of a table: where each lies, what starts it, and whether it has a result."""

import dataclasses
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from benchmarks.trainings import Experiment
from resnet_cifar100.cli.screen import console
from resnet_cifar100.cli.train import training_settings
from resnet_cifar100.config import Config
from resnet_cifar100.engine.record import RunRecord, load_record
from resnet_cifar100.engine.runs import recorded_config
from resnet_cifar100.errors import ConfigError
from resnet_cifar100.runtime import choose_device

# Settings that each training has of its own, and what makes it go on.
_OWN = {"seed", "teacher", "checkpoint_path", "log_file", "run_dir", "resume"}


@dataclass(frozen=True)
class Job:
    """One training: an experiment with a seed, the folder of its run, and that of its record."""

    experiment: Experiment
    seed: int
    folder: Path
    record: Path
    more: tuple[str, ...] = ()  # flags besides those of the experiment

    @property
    def result(self) -> RunRecord | None:
        """What is known of the finished run, from its folder or its record: see check_settings."""
        for folder in (self.folder, self.record):
            if is_finished(folder):
                return load_record(folder)
        return None

    @property
    def teacher(self) -> Path | None:
        """The folder of the run that this one learns from, if it does."""
        name = self.experiment.teacher
        return self.folder.parents[1] / name / "seed0" if name else None

    @property
    def flags(self) -> list[str]:
        """All flags that say what is trained, and where its weights and its log go."""
        flags = [*self.more, *shlex.split(self.experiment.flags)]
        if self.teacher:
            flags += ["--teacher", str(self.teacher / "best_model.pth")]
        flags += ["--checkpoint-path", str(self.folder / "best_model.pth")]
        return [*flags, "--log-file", str(self.folder / "logs.md"), "--seed", str(self.seed)]

    @property
    def command(self) -> list[str]:
        """The call that starts this training, or goes on with it."""
        return [sys.executable, "train.py", *self.flags, "--run-dir", str(self.folder), "--resume"]

    @cached_property
    def config(self) -> Config:
        """The settings that a new run would have."""
        return settings_of(self.flags)


def settings_of(flags: Sequence[str]) -> Config:
    """Return the settings of a new run with these flags; train.py says which have no effect."""
    with console.capture():
        return training_settings(flags)[0]


def is_finished(folder: Path) -> bool:
    """Whether the run in a folder has come to its end."""
    return (folder / "run.json").exists() and load_record(folder).status == "finished"


def jobs_of(
    experiments: Sequence[Experiment], runs: Path, records: Path, more: Sequence[str] = ()
) -> Iterator[Job]:
    """Yield all trainings, seed by seed."""
    for seed in range(max(experiment.seeds for experiment in experiments)):
        for experiment in experiments:
            if seed < experiment.seeds:
                place = Path(experiment.folder, f"seed{seed}")
                yield Job(experiment, seed, runs / place, records / place, tuple(more))


def is_left(job: Job, jobs: Sequence[Job]) -> bool:
    """Whether a training has no result yet, or is to teach one that has none."""
    if not job.result:
        return True
    is_to_teach = any(other.teacher == job.folder and not other.result for other in jobs)
    return is_to_teach and not is_finished(job.folder)


def check_more(experiments: Sequence[Experiment], more: Sequence[str]) -> None:
    """Refuse flags for all of these experiments that one of them, or each training, has itself.

    Raises:
        ConfigError: naming these flags.
    """
    taken = _OWN.union(*(_by_setting(shlex.split(one.flags)) for one in experiments))
    if refused := sorted(taken & _by_setting(more).keys()):
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in refused)
        raise ConfigError(f"{flags} cannot be added: the table says that for each training")


def flags_that_change(experiments: Sequence[Experiment], more: Sequence[str]) -> list[str]:
    """Return those of the flags `more` that change a setting of an experiment: no housekeeping."""
    changed: set[str] = set()
    for experiment in experiments:
        own = shlex.split(experiment.flags)
        changed |= {*changed_settings(settings_of(own), settings_of([*more, *own]))}
    return [word for name, words in _by_setting(more).items() if name in changed for word in words]


def _by_setting(flags: Sequence[str]) -> dict[str, list[str]]:
    """Return the words of flags by the setting that they give: that of --no-flip is flip."""
    settings: dict[str, list[str]] = {}
    name = ""
    for word in flags:
        if word.startswith("--"):
            name = word.partition("=")[0].replace("-", "_").removeprefix("__").removeprefix("no_")
        settings.setdefault(name, []).append(word)
    return settings


def check_settings(jobs: Sequence[Job]) -> None:
    """Refuse folders of runs and records that hold other trainings than these, finished or not.

    Raises:
        ConfigError: naming the first such folder and the settings that differ.
    """
    for job in jobs:
        for folder in (job.folder, job.record):
            if not (folder / "config.json").exists():
                continue
            found = recorded_config(folder)
            if names := changed_settings(found, job.config):
                told = (
                    f"{name} {getattr(found, name)}, not {getattr(job.config, name)}"
                    for name in names
                )
                raise ConfigError(
                    f"{folder} holds a run of other settings than are asked for "
                    f"({'; '.join(told)}): name other folders with --runs and --out, or move it "
                    "away"
                )


def check_devices(jobs: Sequence[Job]) -> None:
    """Refuse to train on a GPU where there is none.

    Where there is one nothing is tried: that would hold a part of it while the jobs train.

    Raises:
        ConfigError: naming the device.
    """
    if not torch.cuda.is_available():
        for job in jobs:
            choose_device(job.config.device)


def changed_settings(found: Config, asked: Config) -> list[str]:
    """Return the names of settings that differ: no housekeeping, nor where a teacher lies.

    The data set that a run took for `auto` is what was asked for.
    """
    if asked.dataset == "auto":
        asked = dataclasses.replace(asked, dataset=found.dataset)
    one, other = (
        dataclasses.replace(config, teacher=config.teacher and Path(config.teacher.name))
        for config in (found, asked)
    )
    return one.differing(other)
