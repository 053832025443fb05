"""Training states on disk: found whole or not at all, and checked before they are believed.

    RUN/state/step_00001950/
        tensors.safetensors     weights, optimizer, moving average, losses of the epoch
        state.json              position, history and settings
        manifest.json           size and SHA-256 of both

A state is written to a temporary folder beside, synced to disk and renamed, so a kill at any moment
leaves the previous one; no pickle is involved. The newest state whose manifest agrees is the one
that a run resumes from.
"""

import contextlib
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
from resnet_cifar100.storage import (
    check_header,
    remove_temporaries,
    sha256_of,
    sync_folder,
    write_durably,
)

FORMAT = 2
TENSORS, STATE, MANIFEST = "tensors.safetensors", "state.json", "manifest.json"


@dataclasses.dataclass(frozen=True)
class SavedState:
    """A training state as read from disk, verified."""

    folder: Path
    step: int
    config: Config
    teacher_sha256: str | None
    history: History
    tensors: dict[str, Tensor]

    def restore(self, state: TrainState) -> None:
        """Bring `state` to where this one was saved.

        Raises:
            CheckpointError: where it belongs to another network.
        """
        try:
            state.load_tensors(self.tensors)
        except (KeyError, RuntimeError, AttributeError, TypeError) as error:
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
        "step": state.step,
        "config": json.loads(state.config.to_json()),
        "teacher": state.teacher_sha256,
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
    before = [folder for folder in _folders(run_dir) if _name(folder) == final.name]
    if before:  # the same step, which a session saved that then ended; it may be the only state
        final = final.with_name(f"{before[0].name}+")
    temporary = final.with_name(f".{final.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir(parents=True)
        for name, content in files.items():
            write_durably(temporary / name, content)
        sync_folder(temporary)
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
    older = [folder for folder in folders[newest + 1 :] if folder not in before]
    for old in {*folders} - {final, *older[: state.config.keep_checkpoints - 1]}:
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
        with contextlib.suppress(OSError):
            file.unlink()
    remove_temporaries(config.log_file)
    remove_temporaries(config.checkpoint_path)


def _folders(run_dir: Path) -> list[Path]:
    """Return the folders of training states, the newest first."""
    return sorted((run_dir / "state").glob("step_*"), reverse=True)


def _name(folder: Path) -> str:
    """Return the name for the step of a folder; each time a step is saved again adds a plus."""
    return folder.name.rstrip("+")


def _facts(content: bytes) -> dict[str, int | str]:
    return {"bytes": len(content), "sha256": sha256_of(content)}


def _read_state(folder: Path) -> SavedState:
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
        if manifest["format"] != FORMAT:
            raise CheckpointError(
                f"{path} has format {manifest['format']}, this version reads {FORMAT}"
            )
        facts = {folder / name: manifest["files"][name] for name in (TENSORS, STATE)}
        contents = {}
        for path, fact in facts.items():
            contents[path.name] = path.read_bytes()
            if fact != _facts(contents[path.name]):
                raise CheckpointError(f"{path} is damaged: it is not as {MANIFEST} says")
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror or error})") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged ({error!r})") from error
    return _parse_state(folder, contents)


def _parse_state(folder: Path, contents: dict[str, bytes]) -> SavedState:
    """Return what the files say; agreeing with a manifest, they may still be by a stranger."""
    try:
        description: dict[str, Any] = json.loads(contents[STATE])
        check_header(contents[TENSORS])
        saved = SavedState(
            folder=folder,
            step=description["step"],
            config=Config.from_json(json.dumps(description["config"])),
            teacher_sha256=description["teacher"],
            history=History(**description["history"]),
            tensors=safetensors.torch.load(contents[TENSORS]),
        )
        _check(saved)
        return saved
    except ConfigError as error:
        raise CheckpointError(f"{folder} was written by another version ({error})") from error
    except (ValueError, KeyError, TypeError, RecursionError, SafetensorError) as error:
        raise CheckpointError(f"{folder} is damaged ({error!r})") from error


def _check(saved: SavedState) -> None:
    """Refuse with a ValueError what `save_state` would not have written."""
    rows = [*saved.history.epochs, *saved.history.steps]
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("the history is not made of rows")
    if not (isinstance(saved.step, int) and saved.step >= 0):
        raise ValueError(f"step is {saved.step}")
    for name, tensor in saved.tensors.items():
        if name.startswith(("model.", "ema.")) and not tensor.isfinite().all():
            raise ValueError(f"{name} is not finite")
