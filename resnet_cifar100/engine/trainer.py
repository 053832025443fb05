"""Training from the first step, or from where a run was stopped, to the result."""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from rich.console import Console
from torch import Tensor

from resnet_cifar100.bundle import Bundle, load_bundle, save_bundle
from resnet_cifar100.config import BEST_MODEL, Config
from resnet_cifar100.data.cifar100 import Dataset, training_splits
from resnet_cifar100.data.loader import Split, TrainLoader
from resnet_cifar100.engine.checkpoint import remove_leftovers, save_state
from resnet_cifar100.engine.distill import load_teacher
from resnet_cifar100.engine.evaluate import EVAL_BATCH_SIZE, eval_batches, evaluate
from resnet_cifar100.engine.metrics import Metrics
from resnet_cifar100.engine.record import Row, RunRecord
from resnet_cifar100.engine.resume import resume_if_present
from resnet_cifar100.engine.runlog import RunLog
from resnet_cifar100.engine.runs import only_writer, restore_finished
from resnet_cifar100.engine.schedule import lr_at
from resnet_cifar100.engine.state import TrainState, create_state
from resnet_cifar100.engine.step import train_step, warm_up
from resnet_cifar100.engine.stop import TIME_IS_UP, Stop, StopRequested
from resnet_cifar100.errors import DataError, InterruptedRunError
from resnet_cifar100.parallel import (
    from_main_process,
    is_main_process,
    is_under_torchrun,
    process_group,
    world_size,
)
from resnet_cifar100.runtime import Runtime, choose_device, create_runtime

# A GPU's epoch may take a quarter of a second, and to write its state twice that.
SECONDS_BETWEEN_SAVES = 10.0
TRAIN_EVAL_IMAGES = 10_000  # as many as there are test images


def fit(config: Config, dataset: Dataset, run_dir: Path, console: Console) -> RunRecord:
    """Train to the end, from the start or the newest state in `run_dir`; return the record.

    A resumed run ends with the same bits as an uninterrupted one on the same CPU.

    Raises:
        ConfigError, CheckpointError: for what cannot work, before the first step where it can be
            known.
        DataError: where the main process has another data set.
        NonFiniteError: where loss or weights blow up; the last good state stays on disk.
        InterruptedRunError: after Ctrl-C or SIGTERM, or before the time is up, once the state is
            saved.
        LostProcessError: where another process of the run ends or cannot be reached.
    """
    with process_group(choose_device(config.device), config.batch_size):
        # Another machine may lack the run's folder, and so its settings, or the data set.
        config, run_dir, title = from_main_process((config, run_dir, dataset.title))
        if dataset.title != title:
            raise DataError(
                f"the main process trains on {title}, this one has {dataset.title}: --data-dir has "
                "to name a folder with the same on every machine"
            )
        if record := from_main_process(restore_finished(config, run_dir)):
            note = f"{run_dir} is finished: nothing is left to train. Its weights are in "
            note += f"{config.checkpoint_path} again."
            console.print(note, highlight=False, markup=False, soft_wrap=True)
            return record
        return _fit(config, create_runtime(config), dataset, run_dir, console)


def _fit(
    config: Config, runtime: Runtime, dataset: Dataset, run_dir: Path, console: Console
) -> RunRecord:
    train, val = training_splits(dataset, config)
    loader = TrainLoader(train.to(runtime.device), config)
    teacher = load_teacher(config, runtime, dataset.title)
    state = create_state(config, runtime, loader, teacher)
    test = dataset.test.to(runtime.device)
    val = val.to(runtime.device) if val else None
    stop = Stop(config.max_hours)
    with only_writer(run_dir):
        for note in _prepare(state, loader, run_dir):
            console.print(note, highlight=False, markup=False, soft_wrap=True)
        last_save = -math.inf
        seconds_between_saves = min(SECONDS_BETWEEN_SAVES, 60 * config.checkpoint_minutes)
        log = RunLog(state, dataset.title, run_dir, console)
        with stop, log, _saved_at_a_stop(log):  # from now on there is a state to save
            while not state.is_finished:
                if not state.has_unmeasured_epoch:
                    train_one_epoch(state, loader, log, stop)
                state.check_finite()
                recalibrate_average(state, loader.split.images, stop)
                is_best = measure_epoch(state, log, stop, val=val, test=test)
                is_save_due = time.monotonic() - last_save >= seconds_between_saves
                if from_main_process(is_best or is_save_due or state.is_finished):
                    if is_best or not val:  # and its state, or a resumed run would fall behind
                        _save_best(state, dataset, log)
                    save_state(state, run_dir)
                    log.write()
                    last_save = time.monotonic()
            if result := measure_result(log, stop, train=loader.split, test=test):
                log.finish(result)
    return log.record


@contextmanager
def _saved_at_a_stop(log: RunLog) -> Iterator[None]:
    """Save where the run is asked to stop, and say so.

    Raises:
        InterruptedRunError: in place of StopRequested.
    """
    try:
        yield
    except StopRequested as request:
        state = log.state
        if not state.is_finished:  # else it is saved, and only its result is wanting
            log.check()
            save_state(state, log.run_dir)
        code = request.exit_code
        if code == TIME_IS_UP and is_under_torchrun():
            code = 0
        raise InterruptedRunError(
            f"stopped at step {state.step} of {state.total_steps}, and saved", code
        ) from None


def _prepare(state: TrainState, loader: TrainLoader, run_dir: Path) -> list[str]:
    """Resume, compile and capture before the first step; return what happened, in sentences."""
    if is_main_process():
        remove_leftovers(run_dir, state.config)
    notes = [*state.runtime.notes, *resume_if_present(state, run_dir)]
    is_first_step_special = (
        state.runtime.is_compiled
        or state.runtime.device.type == "cuda"
        or world_size() > 1  # DistributedDataParallel orders its sums anew after the first one
    )
    if is_first_step_special and state.step < state.total_steps and not state.is_finished:
        notes.append(warm_up(state, *next(loader.batches(0))))
    return notes


def train_one_epoch(state: TrainState, loader: TrainLoader, log: RunLog, stop: Stop) -> None:
    """Take the remaining steps of the epoch, saving now and then.

    Raises:
        StopRequested: after a step, where the run has to end.
    """
    first_step = state.step % state.steps_per_epoch
    if first_step == 0:
        state.losses.reset()
    state.model.train()
    is_watched = state.runtime.device.type == "cpu"  # else to look at a loss is to wait for it
    last_save = time.monotonic()
    log.start_clock()
    for images, targets in loader.batches(state.epoch, first_step):
        train_step(state, images, targets)
        log.step()
        is_last = state.step % state.steps_per_epoch == 0
        if is_last or (is_watched and state.step % state.config.log_steps == 0):
            log.points()
        log.add_elapsed()
        minutes = (time.monotonic() - last_save) / 60
        is_save_due = not is_last and minutes >= state.config.checkpoint_minutes
        if stop.poll(is_save_due=is_save_due):
            log.check()
            save_state(state, log.run_dir)
            log.write()
            last_save = time.monotonic()
            log.start_clock()


def recalibrate_average(state: TrainState, images: Tensor, stop: Stop) -> None:
    """Give the norms of the moving average statistics of its own, if the settings ask for it.

    Raises:
        StopRequested: before a batch, where the run has to end; the epoch is then still to measure.
    """
    if not (state.ema and state.config.ema_images):
        return
    chosen = images[: state.config.ema_images]
    batches = chosen.tensor_split(math.ceil(len(chosen) / EVAL_BATCH_SIZE))  # about equal
    with state.runtime.autocast():
        state.ema.recalibrate(state.preprocess(batch) for batch in stop.between(batches))


def measure_epoch(
    state: TrainState, log: RunLog, stop: Stop, *, val: Split | None, test: Split
) -> bool:
    """Log the epoch just trained; return whether its top-1 on the val split is the highest so far.

    Without a val split it never is: the newest weights count then, because the test set chooses
    nothing and the schedule ends on the last epoch. The test curve is shown, and labelled so.
    """
    epoch = (state.step - 1) // state.steps_per_epoch
    history = state.history
    seconds_before = history.epochs[-1]["train_seconds"] if history.epochs else 0.0
    images = state.steps_per_epoch * state.batch_size
    state.eval_model.eval()
    split, name = (val, "val") if val else (test, "test")
    metrics = _evaluate_in_main_process(partial(_predict, state), split, stop)
    row: Row = {
        "epoch": epoch,
        "step": state.step,
        "train/loss": sum(state.losses.read(0, state.steps_per_epoch)) / state.steps_per_epoch,
        "train/top1": state.losses.top1(images),
        **{f"{name}/{key}": value for key, value in dataclasses.asdict(metrics).items()},
        "lr": lr_at(state.step - 1, state.config, steps_per_epoch=state.steps_per_epoch),
        "train_seconds": history.train_seconds,
        "speed/images_per_s": images / (history.train_seconds - seconds_before),
    }
    log.epoch(row)
    return val is not None and history.best_epoch("val/top1") == epoch


def measure_result(log: RunLog, stop: Stop, *, train: Split, test: Split) -> Row | None:
    """Evaluate best_model.pth, read back from disk, on the test split: the figure of the run.

    And on training images as they are, neither cropped nor mirrored nor augmented (train_eval), for
    what the network has learned by heart. Of several processes the main one returns both.
    """
    some = Split(train.images[:TRAIN_EVAL_IMAGES], train.labels[:TRAIN_EVAL_IMAGES])
    splits = {"test": test, "train_eval": some}
    if not is_main_process():
        for split in splits.values():
            _evaluate_in_main_process(None, split, stop)
        return None
    state, path = log.state, log.run_dir / BEST_MODEL.name
    bundle = load_bundle(path).to(state.runtime.device)
    result: Row = {
        **{
            f"{name}/{key}": value
            for name, split in splits.items()
            for key, value in dataclasses.asdict(
                _evaluate_in_main_process(bundle.logits, split, stop)
            ).items()
        },
        "epoch": bundle.provenance["metrics"]["epoch"],
        "chosen_by": "best val top-1" if state.config.val_size else "last epoch",
    }
    bundle.provenance["metrics"] |= result
    save_bundle(bundle, path, state.config.checkpoint_path)
    return result


def _evaluate_in_main_process(
    predict: Callable[[Tensor], Tensor] | None, split: Split, stop: Stop
) -> Metrics:
    """Return to every process what the main one measures; all can be stopped on the way."""
    if predict and is_main_process():
        return from_main_process(evaluate(predict, split, stop.between))
    for _ in stop.between(eval_batches(split)):
        pass
    return from_main_process(Metrics(math.nan, math.nan, math.nan))


def _predict(state: TrainState, images: Tensor) -> Tensor:
    with state.runtime.autocast():
        logits: Tensor = state.eval_model(state.preprocess(images))
    return logits


def _save_best(state: TrainState, dataset: Dataset, log: RunLog) -> None:
    if not is_main_process():
        return
    bundle = Bundle(
        model_config=state.config.model_config,
        model=state.eval_model,
        preprocess=state.preprocess,
        fine_names=dataset.fine_names,
        coarse_names=dataset.coarse_names,
        fine_to_coarse=dataset.fine_to_coarse,
        provenance={
            "dataset": dataset.title,
            "metrics": dict(state.history.epochs[-1]),
            "config": state.config.to_json(),
            "environment": log.record.environments[-1],
        },
    )
    save_bundle(bundle, log.run_dir / BEST_MODEL.name, state.config.checkpoint_path)
