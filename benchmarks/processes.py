"""What a training step costs where several processes share out its batch, one thread or GPU each.

python -m benchmarks.processes [--device cpu|cuda] [--rounds N]
"""

import dataclasses
import os
import socket
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import TypeVar

import torch
import torch.distributed as dist

from benchmarks.measure import Block, seconds_per_piece, speed_ratios, spread
from benchmarks.our_loop import forget, ready_state
from benchmarks.page import Asked, Table, main
from benchmarks.plain_loop import fresh_process
from benchmarks.scaling import RECIPES, at_full_size, how, measure, thread_block, thread_turn
from resnet_cifar100.config import Config
from resnet_cifar100.parallel import process_group
from resnet_cifar100.runtime import choose_device

T = TypeVar("T")
_GROUP = ExitStack()  # of this process


def process_counts(device: str) -> list[int]:
    """Return 2, 4 and 8, as far as each has a core, or a GPU, of its own."""
    most = min(8, torch.cuda.device_count() if device == "cuda" else os.cpu_count() or 1)
    return [2**power for power in range(1, most.bit_length())]


def join(rank: int, count: int, port: int, config: Config) -> None:
    """Make this process one of several that train as one, until it is told to leave them."""
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "MASTER_PORT": port}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", **{name: str(one) for name, one in place.items()}}
    device = choose_device(config.device)
    _GROUP.enter_context(process_group(device, config.batch_size))


def leave() -> None:
    """Leave the others, the network first: it must not outlive the group."""
    forget()
    _GROUP.close()


def together(started: Iterable[Future[T]]) -> list[T]:
    """Wait for what all processes have been given, and return what each found."""
    return [one.result() for one in list(started)]


def joined_processes(stack: ExitStack, count: int, config: Config) -> list[ProcessPoolExecutor]:
    """Return processes that have met; they end with `stack`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    processes = [stack.enter_context(fresh_process()) for _ in range(count)]
    together(
        process.submit(join, rank, count, port, config) for rank, process in enumerate(processes)
    )
    stack.callback(lambda: together(process.submit(leave) for process in processes))
    return processes


def joined_block(
    processes: Sequence[ProcessPoolExecutor], act: Callable[[int], list[float]]
) -> Block:
    """Return what all processes do together as a block, timed by the first."""
    return lambda pieces: together(process.submit(act, pieces) for process in processes)[0]


def averaging_turn(config: Config, pieces: int) -> list[float]:
    """Time the averaging of as many numbers as the network has gradients, and nothing beside."""
    state, _ = ready_state(config)
    count, device = sum(p.numel() for p in state.model.parameters()), state.runtime.device
    piece = partial(dist.all_reduce, torch.zeros(count, device=device))
    return [seconds_per_piece(piece, pieces, device)]


def of_recipe(recipe: str, asked: Asked) -> dict[str, list[float]]:
    """Return the seconds of a step by number of processes, and of the averaging alone."""
    config = dataclasses.replace(at_full_size(recipe, asked), num_threads=1)
    with ExitStack() as stack:
        blocks = {"1": thread_block(stack.enter_context(fresh_process()), config)}
        for count in process_counts(asked.device):
            processes = joined_processes(stack, count, config)
            blocks[str(count)] = joined_block(processes, partial(thread_turn, config))
            averaging = joined_block(processes, partial(averaging_turn, config))
            blocks[f"averaging of {count}"] = averaging
        return measure(blocks, asked)


def tables(asked: Asked) -> Iterator[Table]:
    """Yield the table of process counts, where there is more than one core or GPU."""
    if not (counts := process_counts(asked.device)):
        return
    rows, samples = [], {}
    for recipe in RECIPES:
        config = at_full_size(recipe, asked)
        seconds = samples[recipe] = of_recipe(recipe, asked)
        for count in ("1", *map(str, counts)):
            averaging = seconds.get(f"averaging of {count}")
            rows.append(
                [
                    f"{recipe} ({config.model})",
                    count,
                    f"{statistics.median(seconds[count]) * 1e3:,.1f}",
                    f"{config.batch_size / statistics.median(seconds[count]):,.0f}",
                    spread(speed_ratios(seconds[count], seconds["1"])),
                    f"{statistics.median(averaging) * 1e3:,.1f}" if averaging else "",
                ]
            )
    what = "the batch shared out among processes, on a CPU with one thread each"
    yield Table(
        name="processes",
        title="Cost against processes",
        how=how(asked, what),
        head=[
            "Recipe",
            "Processes",
            "ms a step",
            "Images/s",
            "Images/s to those of one process",
            "ms to average the gradients, alone",
        ],
        rows=rows,
        samples={"seconds_per_step": samples},
    )


if __name__ == "__main__":
    main({"processes": tables})
