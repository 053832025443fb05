"""Folders of runs: one a run, beside best_model.pth, never used twice."""

import contextlib
import dataclasses
import itertools
from collections.abc import Iterator
from datetime import date
from pathlib import Path

from filelock import FileLock, Timeout

from resnet_cifar100.bundle import load_bundle, save_bundle
from resnet_cifar100.config import BEST_MODEL, Config
from resnet_cifar100.engine.checkpoint import load_newest_state, remove_leftovers
from resnet_cifar100.engine.log_page import render_markdown
from resnet_cifar100.engine.record import RunRecord, load_record
from resnet_cifar100.errors import CheckpointError, ConfigError
from resnet_cifar100.parallel import is_main_process
from resnet_cifar100.storage import replace_file


def new_run_dir(config: Config) -> Path:
    """Return a folder name that no run has yet; it is made by the run."""
    name = f"{date.today():%Y-%m-%d}_{config.recipe}_{config.model}_seed{config.seed}"
    parent = config.checkpoint_path.parent
    names = itertools.chain([name], (f"{name}_{number}" for number in itertools.count(2)))
    return next(parent / name for name in names if not (parent / name).exists())


def newest_run_dir(checkpoint_dir: Path) -> Path:
    """Return the unfinished run below `checkpoint_dir` that was written to last.

    Raises:
        CheckpointError: where there is none.
    """
    runs = sorted(
        (path.parent for path in checkpoint_dir.glob("*/run.json")),
        key=lambda folder: (folder / "run.json").stat().st_mtime,
        reverse=True,
    )
    for folder in runs:
        with contextlib.suppress(CheckpointError):  # of another version, say
            if load_record(folder).status != "finished":
                return folder
    raise CheckpointError(
        f"no unfinished run in {checkpoint_dir}/ to resume; start one without --resume"
    )


def restore_finished(config: Config, run_dir: Path) -> RunRecord | None:
    """Return the record of a run that has done all that these settings ask for, if this is one.

    Its weights and its page are written to where the settings want them, over whatever is there.
    Of several processes the main one knows.

    Raises:
        CheckpointError: where its weights cannot be read, or not be written there, or another
            process goes on with it.
    """
    if not is_main_process():
        return None
    try:
        record = load_record(run_dir)
    except CheckpointError:  # there is none yet, or it says nothing
        return None
    if record.status != "finished" or config.differing(record.config):
        return None
    with only_writer(run_dir):
        remove_leftovers(run_dir, config)  # of a kill just after it was finished
        save_bundle(load_bundle(run_dir / BEST_MODEL.name), config.checkpoint_path)
        replace_file(config.log_file, render_markdown(record))
    return dataclasses.replace(record, config=config)


@contextlib.contextmanager
def only_writer(run_dir: Path) -> Iterator[None]:
    """Hold the lock of a run's folder; the system lets go of it even if this process is killed.

    Raises:
        CheckpointError: where another process trains there, or the folder cannot be made.
    """
    if not is_main_process():
        yield
        return
    lock = FileLock(run_dir / ".lock")
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise CheckpointError(f"another process is training in {run_dir}") from error
    except OSError as error:
        raise CheckpointError(f"{run_dir} cannot be used ({error.strerror or error})") from error
    try:
        yield
    finally:
        lock.release()


def recorded_config(run_dir: Path) -> Config:
    """Return the settings that the run in `run_dir` was last given.

    Where config.json is damaged they are those of the newest state.

    Raises:
        CheckpointError: where `run_dir` holds no run, or none that can be read.
    """
    try:
        return Config.from_json((run_dir / "config.json").read_text())
    except OSError as error:
        raise CheckpointError(f"{run_dir} holds no run to resume") from error
    except (ConfigError, UnicodeDecodeError) as error:
        saved, _ = load_newest_state(run_dir)
        if saved is not None:
            return saved.config
        raise CheckpointError(f"{run_dir / 'config.json'} cannot be used: {error}") from error
