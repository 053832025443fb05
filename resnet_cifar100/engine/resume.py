"""Going on with a run where it was stopped."""

import dataclasses
import math
from pathlib import Path

from resnet_cifar100.config import HOUSEKEEPING
from resnet_cifar100.engine.checkpoint import load_newest_state
from resnet_cifar100.engine.state import TrainState
from resnet_cifar100.errors import CheckpointError, ConfigError
from resnet_cifar100.parallel import from_main_process, is_main_process

# What a resumed run may change, always announced: the length of the run, the machine (which may
# change how numbers are rounded), and where things go.
CHANGEABLE = HOUSEKEEPING | {"epochs", "early_stopping_patience", "precision", "compile"}


def resume_if_present(state: TrainState, run_dir: Path) -> list[str]:
    """Bring `state` to the newest sound one in `run_dir`, if there is one; say so in sentences.

    Raises:
        CheckpointError: where the settings differ in what may not change, or no state is sound.
        ConfigError: for fewer epochs than are trained.
    """
    # The other processes may be on machines without that folder.
    saved, notes = from_main_process(
        load_newest_state(run_dir) if is_main_process() else (None, [])
    )
    if saved is None:
        if (run_dir / "config.json").exists():
            notes.append(f"No state was saved in {run_dir} yet: starting at its first step.")
        return notes
    old, new = dataclasses.asdict(saved.config), dataclasses.asdict(state.config)
    # The file may lie elsewhere now, but has to hold the same network.
    old["teacher"], new["teacher"] = saved.teacher_sha256, state.teacher_sha256
    changed = {name: f"{name} {old[name]} -> {new[name]}" for name in new if old[name] != new[name]}
    if refused := [text for name, text in changed.items() if name not in CHANGEABLE]:
        raise CheckpointError(
            f"{run_dir} cannot go on with other settings: {', '.join(refused)}. "
            "Leave them out to resume, or leave out --resume to start a new run."
        )
    least = math.ceil(saved.step / state.steps_per_epoch)
    if state.config.epochs < least:
        raise ConfigError(
            f"--epochs must be at least {least} to resume {run_dir}, which is in epoch {least}, "
            f"got {state.config.epochs}"
        )
    saved.restore(state)
    place = f"Resuming {run_dir} at step {state.step} of {state.total_steps}"
    is_last = state.step == state.total_steps
    notes.append(f"{place}: all are taken." if is_last else f"{place} (epoch {state.epoch + 1}).")
    said = {name: f"Changed for the rest of the run: {text}." for name, text in changed.items()}
    state.changes = [sentence for name, sentence in said.items() if name not in HOUSEKEEPING]
    return [*notes, *said.values()]
