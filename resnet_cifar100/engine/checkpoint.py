"""Training states on disk: found whole or not at all, and checked before they are believed.

    RUN/state/step_00001950/
        tensors.safetensors     weights, optimizer, moving average, losses of the epoch, generators
        state.json              position, history and settings
        manifest.json           size and SHA-256 of both

A state is written to a temporary folder beside, synced to disk and renamed, so a kill at any moment
leaves the previous one; no pickle is involved. The newest state whose manifest agrees is the one
that a run resumes from.
"""

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from resnet_cifar100.config import Config
from resnet_cifar100.engine.state import History, TrainState
from resnet_cifar100.errors import CheckpointError, ConfigError
from resnet_cifar100.parallel import is_main_process
from resnet_cifar100.storage import remove_temporaries, sha256_of, sync_folder, write_durably

FORMAT = 1
TENSORS, STATE, MANIFEST = "tensors.safetensors", "state.json", "manifest.json"


@dataclasses.dataclass(frozen=True)
class SavedState:
    """A training state as read from disk, verified."""

    folder: Path
    step: int
    config: Config
    history: History
    tensors: dict[str, Tensor]

    def restore(self, state: TrainState) -> None:
        """Bring `state` to where this one was saved.

        Raises:
            CheckpointError: where it belongs to another network.
        """
        try:
            state.load_tensors(self.tensors)
        except (KeyError, RuntimeError) as error:
            raise CheckpointError(
                f"{self.folder} belongs to another network or settings"
            ) from error
        state.step = self.step
        state.history = self.history


def save_state(state: TrainState, run_dir: Path) -> Path:
    """Write `state` below `run_dir`, drop the oldest beyond `keep_checkpoints`, return its folder.

    Several processes have to call this together; only the main one writes.

    Raises:
        CheckpointError: where it cannot be written; earlier states are untouched.
        NonFiniteError: for weights that are not finite.
    """
    description = {
        "format": FORMAT,
        "step": state.step,
        "config": json.loads(state.config.to_json()),
        "history": dataclasses.asdict(state.history),
    }
    state.check_finite()
    final = run_dir / "state" / f"step_{state.step:08d}"
    tensors = state.tensors()
    if not is_main_process():
        return final
    files = {
        TENSORS: safetensors.torch.save(tensors),
        STATE: json.dumps(description, indent=1).encode(),
    }
    facts = {name: _facts(content) for name, content in files.items()}
    files[MANIFEST] = json.dumps({"format": FORMAT, "files": facts}, indent=1).encode()
    temporary = final.with_name(f".{final.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir(parents=True)
        for name, content in files.items():
            write_durably(temporary / name, content)
        sync_folder(temporary)
        if final.exists():  # the same step, saved by a session that was then killed
            shutil.rmtree(final)
        temporary.rename(final)
        sync_folder(final.parent)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise CheckpointError(
            f"the training state cannot be written to {final} ({error.strerror or error}); "
            "the states saved before are untouched"
        ) from error
    folders = _folders(run_dir)
    newest = folders.index(final)  # any before it are damaged: the run resumed from an older one
    for old in [*folders[:newest], *folders[newest + state.config.keep_checkpoints :]]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def load_newest_state(run_dir: Path) -> tuple[SavedState | None, list[str]]:
    """Return the newest sound state of a run, or None, and a sentence for each one passed over.

    Raises:
        CheckpointError: where there are states and none is sound.
    """
    faults: list[str] = []
    for folder in _folders(run_dir):
        try:
            return _read_state(folder), faults
        except CheckpointError as error:
            faults.append(str(error))
    if faults:
        raise CheckpointError(f"no training state in {run_dir} can be used: " + "; ".join(faults))
    return None, faults


def remove_leftovers(run_dir: Path, config: Config) -> None:
    """Remove what killed writers left half-written; for the holder of the run's lock alone."""
    for folder in (run_dir / "state").glob(".*.tmp"):
        shutil.rmtree(folder, ignore_errors=True)
    for file in run_dir.glob(".*.tmp"):
        file.unlink()
    remove_temporaries(config.log_file)
    remove_temporaries(config.checkpoint_path)
    remove_temporaries(config.checkpoint_path.with_name(f"{config.checkpoint_path.name}.sha256"))


def _folders(run_dir: Path) -> list[Path]:
    """Return the folders of training states, the newest first."""
    return sorted((run_dir / "state").glob("step_*"), reverse=True)


def _facts(content: bytes) -> dict[str, int | str]:
    return {"bytes": len(content), "sha256": sha256_of(content)}


def _read_state(folder: Path) -> SavedState:
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        if manifest["format"] != FORMAT:
            raise CheckpointError(
                f"{folder} has format {manifest['format']}, this version reads {FORMAT}"
            )
        contents = {name: (folder / name).read_bytes() for name in (TENSORS, STATE)}
        for name, content in contents.items():
            if manifest["files"][name] != _facts(content):
                raise CheckpointError(f"{folder / name} is damaged (size or SHA-256 differ)")
        return _parse_state(folder, contents)
    except OSError as error:
        raise CheckpointError(f"{error.filename} cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError, SafetensorError) as error:
        raise CheckpointError(f"{folder} is damaged ({error!r})") from error


def _parse_state(folder: Path, contents: dict[str, bytes]) -> SavedState:
    description: dict[str, Any] = json.loads(contents[STATE])
    try:
        config = Config.from_json(json.dumps(description["config"]))
    except ConfigError as error:
        raise CheckpointError(f"{folder} was written by another version ({error})") from error
    return SavedState(
        folder=folder,
        step=description["step"],
        config=config,
        history=History(**description["history"]),
        tensors=safetensors.torch.load(contents[TENSORS]),
    )
