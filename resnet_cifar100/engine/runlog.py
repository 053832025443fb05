"""Keeps the record of a run up to date while it goes on, and shows it."""

import contextlib
import itertools
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from rich.console import Console

from resnet_cifar100.engine.log_page import render_markdown
from resnet_cifar100.engine.progress import RunProgress
from resnet_cifar100.engine.record import Row, RunRecord, load_record
from resnet_cifar100.engine.schedule import lr_at
from resnet_cifar100.engine.state import TrainState, non_finite
from resnet_cifar100.errors import CheckpointError, InterruptedRunError
from resnet_cifar100.models.summary import summarize
from resnet_cifar100.parallel import is_main_process
from resnet_cifar100.runtime import environment
from resnet_cifar100.storage import replace_file

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class RunLog:
    """Context that logs a run: on screen, in its folder, in Markdown, in TensorBoard if asked."""

    def __init__(self, state: TrainState, title: str, run_dir: Path, console: Console) -> None:
        summary = summarize(state.config.model_config)
        self.state = state
        self.run_dir = run_dir
        self.record = RunRecord(
            config=state.config,
            environments=[*_earlier_sessions(run_dir, state), _this_session(state)],
            title=title,
            parameters=summary.parameters,
            multiply_adds=summary.multiply_adds,
            steps_per_epoch=state.steps_per_epoch,
            status="running",
            history=state.history,
        )
        self.progress = RunProgress(state, console)
        self.tensorboard = None
        if state.config.tensorboard and is_main_process():
            self.tensorboard = _tensorboard_writer(run_dir, state)
            self.tensorboard.add_text("dataset", title)
        self.started = time.perf_counter()

    def __enter__(self) -> Self:
        self.write()
        self._announce_changes()
        self.progress.start()
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        self.progress.stop()
        if self.tensorboard:
            self.tensorboard.close()
        if error is not None:
            word = "interrupted" if isinstance(error, InterruptedRunError) else "failed"
            self.record.status = f"{word}: {str(error) or type(error).__name__}"
            with contextlib.suppress(CheckpointError):  # the error under way says more
                self.write()

    def _announce_changes(self) -> None:
        """Say what of the machine differs from the session before; the last bits may differ too."""
        for before, now in itertools.pairwise(self.record.environments[-2:]):
            for key in ("torch", "cpu", "threads", "processes", "gpu", "commit"):
                if before.get(key) != now[key]:
                    change = f"{key} {before.get(key)} -> {now[key]}"
                    self.progress.console.print(
                        f"Since the last session: {change}.", markup=False, soft_wrap=True
                    )

    def write(self) -> None:
        """Bring the files up to date; of several processes, the main one does."""
        if not is_main_process():
            return
        self.record.save(self.run_dir)
        replace_file(self.state.config.log_file, render_markdown(self.record))

    def start_clock(self) -> None:
        """Count training time from now on."""
        self.started = time.perf_counter()

    def add_elapsed(self) -> None:
        """Add the time since `start_clock` to the training time of the run, and go on counting."""
        now = time.perf_counter()
        self.state.history.train_seconds += now - self.started
        self.started = now

    def step(self) -> None:
        """Move the bar by a step; waits for nothing."""
        self.progress.step(self.state)

    def check(self) -> None:
        """Wait for the device, and refuse a loss since the last point that is not finite.

        Raises:
            NonFiniteError: the message names the step.
        """
        self._losses_since_last_point()

    def points(self) -> None:
        """Bring the loss curve up to this step, a point each `log_steps`; else as `check`.

        A point is the mean loss since the last one. On a CPU there is one to add. On a GPU there
        are those of an epoch, whose steps share the time evenly: only at its end is it waited for.
        """
        state, steps = self.state, self.state.history.steps
        losses = self._losses_since_last_point()
        last_seconds = steps[-1]["train_seconds"] if steps else 0.0
        self.add_elapsed()
        seconds_per_step = (state.history.train_seconds - last_seconds) / len(losses)
        first = state.step - len(losses)
        every = state.config.log_steps
        for step in [*range(first - first % every + every, state.step, every), state.step]:
            part, losses = losses[: step - first], losses[step - first :]
            point = {
                "step": step,
                "train/loss": sum(part) / len(part),
                "lr": lr_at(step - 1, state.config, steps_per_epoch=state.steps_per_epoch),
                "train_seconds": last_seconds + seconds_per_step * len(part),
            }
            steps.append(point)
            first, last_seconds = step, point["train_seconds"]
        self.progress.live(
            loss=point["train/loss"],
            lr=point["lr"],
            images_per_s=state.batch_size / seconds_per_step,
        )

    def _losses_since_last_point(self) -> list[float]:
        state, steps = self.state, self.state.history.steps
        epoch_start = (state.step - 1) // state.steps_per_epoch * state.steps_per_epoch
        first = max(int(steps[-1]["step"]) if steps else 0, epoch_start)
        losses = state.losses.read(first - epoch_start, state.step - epoch_start)
        for step, loss in enumerate(losses, start=first):
            if not math.isfinite(loss):
                raise non_finite(f"the loss is {loss}", step)
        return losses

    def epoch(self, row: Row) -> None:
        """Add the row of a finished epoch, and show it; `write` follows when its state is saved."""
        history = self.state.history
        history.epochs.append(row)
        self.progress.epoch(
            row,
            epochs=self.state.config.epochs,
            split=history.split,
            title=self.record.title,
        )
        if self.tensorboard:
            for key, value in row.items():
                self.tensorboard.add_scalar(key, value, self.state.step)

    def finish(self, result: Row) -> None:
        """Add the result and close the record."""
        self.record.result = result
        self.record.status = "finished"
        self.write()


def _this_session(state: TrainState) -> Row:
    """Return the environment, with the teacher and what was changed, where there is any."""
    here = environment(state.runtime.device, state.runtime.notes)
    if state.teacher:
        here["teacher"] = state.teacher.description
    if state.changes:
        here["changes"] = state.changes
    return here


def _earlier_sessions(run_dir: Path, state: TrainState) -> list[Row]:
    """Return the environments of all earlier sessions of the run, where it is resumed."""
    try:
        return load_record(run_dir).environments if state.step else []
    except CheckpointError:  # the state is sound and the run goes on; only its past is not known
        return []


def _tensorboard_writer(run_dir: Path, state: TrainState) -> "SummaryWriter":
    from torch.utils.tensorboard import SummaryWriter  # an extra

    return SummaryWriter(str(run_dir / "tensorboard"), purge_step=state.step + 1)
