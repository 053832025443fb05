"""One run in several processes: PyTorch's DistributedDataParallel, started by torchrun.

    torchrun --nproc-per-node 2 train.py --recipe fast

Every process holds the whole network and takes its share of each batch; the gradients are averaged
(https://docs.pytorch.org/docs/stable/notes/ddp.html). Process 0, the main one, measures, logs and
saves; the others follow its decisions. In a run of one process all of this does nothing.
"""

import gc
import os
import time
import traceback
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from resnet_cifar100.errors import ConfigError, LostProcessError

T = TypeVar("T")
_PATIENCE = timedelta(minutes=10)  # with a machine that vanished; dead processes show at once


def world_size() -> int:
    """Return the number of processes that torchrun started for this run."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Return the number of this process, from 0."""
    return int(os.environ.get("RANK", "0"))


def is_main_process() -> bool:
    """Whether this process measures, logs and saves."""
    return rank() == 0


@contextmanager
def process_group(device: torch.device, batch_size: int) -> Iterator[None]:
    """Join the other processes of the run, if there are any, and leave them at the end.

    Networks that share gradients must not outlive the context: keep them in a function of its own.

    Raises:
        ConfigError: for a batch that cannot be shared out evenly.
        LostProcessError: where another process has ended or cannot be reached.
    """
    if world_size() == 1:
        yield
        return
    if batch_size % world_size() or batch_size < 2 * world_size():  # a norm needs two images
        raise ConfigError(
            f"--batch-size must be a multiple of the {world_size()} processes, at least twice as "
            f"many, got {batch_size}"
        )
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    try:
        store, _, _ = next(rendezvous("env://", timeout=_PATIENCE))
        store = dist.PrefixStore(_name_of_this_start(store), store)  # type: ignore[attr-defined]
        dist.init_process_group(
            backend, timeout=_PATIENCE, store=store, rank=rank(), world_size=world_size()
        )
        yield
        dist.barrier()
    except BaseException as error:
        traceback.clear_frames(error.__traceback__)
        is_of_gloo = isinstance(error, RuntimeError) and "gloo" in str(error)
        if isinstance(error, dist.DistError) or is_of_gloo:
            raise LostProcessError(
                "another process of this run has ended or cannot be reached; it may have said why"
            ) from error
        raise
    finally:
        # The network must go first: as the last owner of the group it would wait, holding Python's
        # lock, for a thread of the group that wants that lock.
        gc.collect()
        if dist.is_initialized():
            dist.destroy_process_group()


def _name_of_this_start(store: dist.Store) -> str:  # type: ignore[name-defined]
    """Agree with the other processes that run now on a name that no dead one has used.

    torchrun keeps one store over all its restarts and torch the same keys in it (2.13): without a
    name of its own, a process that is started again may read the address of one that was killed,
    and wait for it for half an hour.
    """
    me = uuid.uuid4().hex
    if is_main_process():
        store.set("start", me)
        for other in range(1, world_size()):
            store.set(f"{me}/{store.get(f'{me}/{other}').decode()}", "welcome")
        return me
    deadline = time.monotonic() + _PATIENCE.total_seconds()
    while True:
        start: str = store.get("start").decode()  # maybe of a dead process, which never answers
        store.set(f"{start}/{rank()}", me)
        try:
            store.wait([f"{start}/{me}"], timedelta(seconds=1))
        except dist.DistStoreError:
            if time.monotonic() > deadline:
                raise
            continue
        return start


def is_under_torchrun() -> bool:
    """Whether this process is a child of torchrun, for which any exit code but 0 is a failure."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def local_device(device: torch.device) -> torch.device:
    """Return the GPU of this process, where each has its own.

    Raises:
        ConfigError: where there are fewer than processes.
    """
    if device.type != "cuda" or world_size() == 1:
        return device
    index, count = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if index >= count:
        raise ConfigError(
            f"--nproc-per-node must be at most {count}, the GPUs of this machine, got {index + 1} "
            "or more"
        )
    return torch.device("cuda", index)


def share_gradients(model: nn.Module) -> nn.Module:
    """Return `model` such that its backward pass averages the gradients over the processes."""
    return DistributedDataParallel(model) if world_size() > 1 else model


def share_norms(model: nn.Module, device: torch.device) -> None:
    """Make the norms of `model` see the batches of all processes as one, in place.

    Raises:
        ConfigError: without a GPU, where torch has no such norm.
    """
    if device.type != "cuda":
        raise ConfigError("--sync-norms must be false without a GPU: torch has it only there")
    nn.SyncBatchNorm.convert_sync_batchnorm(model)


def mean_over_processes(values: Tensor) -> Tensor:
    """Return the mean of `values` over the processes."""
    if world_size() > 1:
        total = values.double()  # in which the mean of equal numbers is that number, to the bit
        dist.all_reduce(total)
        values = (total / world_size()).to(values.dtype)
    return values


def highest_of_all_processes(number: int) -> int:
    """Return the highest of the numbers that the processes call this with; no GPU waits for it."""
    if world_size() == 1:
        return number
    highest = torch.tensor(number)  # on the CPU, whatever the network is on
    dist.all_reduce(highest, dist.ReduceOp.MAX)
    return int(highest)


def from_main_process(value: T) -> T:
    """Return the value that the main process has."""
    if world_size() > 1:
        values = [value]
        dist.broadcast_object_list(values, device=torch.device("cpu"))
        return values[0]
    return value
