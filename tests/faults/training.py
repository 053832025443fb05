"""Small trainings in processes of their own, which start in milliseconds and can be killed."""

import dataclasses
import io
import multiprocessing
import os
import socket
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch
import torch._dynamo  # which each optimizer imports: two seconds that the processes need not spend
from rich.console import Console

from resnet_cifar100.config import Config
from resnet_cifar100.data.cifar100 import load_dataset
from resnet_cifar100.engine.trainer import fit
from resnet_cifar100.errors import ProjectError
from resnet_cifar100.parallel import rank
from tests.interruptions import within

Fault = Callable[[], None]
_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["tests.faults.training"])


def settings(data_dir: Path, **changes: object) -> Config:
    """Four epochs of eight steps with all that is random or stateful, saved at every step."""
    config = Config(
        recipe="faults",
        model="resnet8x4_s2",
        width=0.25,
        image_size=8,
        dropout=0.2,
        stochastic_depth=0.2,
        dataset="synthetic",
        data_dir=data_dir,
        crop_padding=2,
        alternating_flip=True,
        augment=("cutout", "mixup", "cutmix"),
        batch_size=50,
        epochs=4,
        lr=0.05,
        warmup_epochs=1,
        label_smoothing=0.1,
        ema_decay=0.9,
        ema_images=100,
        device="cpu",
        precision="fp32",
        num_threads=1,
        log_steps=3,
        checkpoint_minutes=0,
    )
    return dataclasses.replace(config, **changes)


def live(config: Config, folder: Path, environment: dict[str, str], fault: Fault | None) -> None:
    """Train in this process until the end, and exit as train.py does."""
    os.environ |= environment
    torch.manual_seed(time.time_ns() % 2**32)  # a new process has its generator anywhere
    config = within(config, folder)
    if fault:
        fault()
    try:
        fit(config, load_dataset(config), folder / "run", Console(file=io.StringIO()))
    except ProjectError as error:
        (folder / f"last_words.{rank()}").write_text(str(error))
        sys.exit(error.exit_code)


def start(
    config: Config,
    folder: Path,
    environment: dict[str, str] | None = None,
    fault: Fault | None = None,
) -> BaseProcess:
    """Start or resume the run in `folder`; return its process. `fault` is called in it first."""
    folder.mkdir(parents=True, exist_ok=True)
    process = _SERVER.Process(target=live, args=(config, folder, environment or {}, fault))
    process.start()
    return process


def start_together(
    config: Config | Sequence[Config],
    folder: Path,
    fault: Fault | None = None,
    processes: int = 2,
) -> list[BaseProcess]:
    """Start or resume a run of several processes, as torchrun would; return them by rank."""
    configs = [config] * processes if isinstance(config, Config) else config
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    place["WORLD_SIZE"] = str(len(configs))
    return [
        start(own, folder, {"RANK": str(number), "LOCAL_RANK": str(number), **place}, fault)
        for number, own in enumerate(configs)
    ]


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def ends_of(processes: Sequence[BaseProcess], seconds: float = 60) -> list[int]:
    """Wait for several processes, as `end_of`."""
    deadline = time.monotonic() + seconds
    return [end_of(process, max(0.1, deadline - time.monotonic())) for process in processes]


def end_of(process: BaseProcess, seconds: float = 60) -> int:
    """Wait for a process; return its exit code, negative for a signal.

    Raises:
        TimeoutError: where it does not end.
    """
    process.join(seconds)
    if process.exitcode is None:
        process.kill()
        raise TimeoutError(f"process {process.pid} did not end in {seconds} s")
    return process.exitcode


def seconds_of_a_whole_life(config: Config, folder: Path) -> float:
    """Train straight through; return how long that took."""
    started = time.monotonic()
    assert end_of(start(config, folder)) == 0
    return time.monotonic() - started


def newest_step(run_dir: Path) -> int:
    """Return the step of the newest state, or -1; by names alone, for its owner may remove it."""
    names = [folder.name for folder in (run_dir / "state").glob("step_*")]
    return max((int(name.removeprefix("step_").rstrip("+")) for name in names), default=-1)


def last_words(folder: Path, rank: int = 0) -> str:
    """Return the sentence that the last process to fail there ended with, if any did."""
    words = folder / f"last_words.{rank}"
    return words.read_text() if words.exists() else ""


def leftovers(folder: Path) -> list[str]:
    """Return what killed writers left half-written."""
    return sorted(
        str(Path(parent) / name)
        for parent, folders, files in os.walk(folder)
        for name in [*folders, *files]
        if name.endswith(".tmp")
    )
