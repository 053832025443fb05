"""Folders of runs: one a run, beside best_model.pth, never used twice."""

import contextlib
import itertools
from datetime import date
from pathlib import Path

from resnet_cifar100.config import Config
from resnet_cifar100.engine.checkpoint import load_newest_state
from resnet_cifar100.engine.record import load_record
from resnet_cifar100.errors import CheckpointError, ConfigError


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
