"""What a training step costs with other batch sizes and other numbers of threads.

python -m benchmarks.scaling [--device cpu] [--rounds N]
"""

import dataclasses
import os
import statistics
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack

from benchmarks.measure import (
    Block,
    mean_of_turns,
    speed_ratios,
    spread,
    take_turns,
)
from benchmarks.our_loop import forget, step_block
from benchmarks.page import Asked, Table, main
from benchmarks.plain_loop import fresh_process
from resnet_cifar100.config import Config
from resnet_cifar100.recipes import create_recipe

RECIPES = ("reference", "fast")
HOW = (
    "Our training step, not compiled (on a GPU one process replays it as a CUDA graph, several do "
    "not), in the precision that `auto` is here ({precision}), {what}. Medians over {rounds} "
    "rounds in which the rows of one recipe take turns; two before them are not counted; ratios "
    "are of images/s within a round: median, and lowest to highest."
)


def at_full_size(recipe: str, asked: Asked) -> Config:
    """Return the settings of a recipe, eager and at its last image size alone."""
    return dataclasses.replace(
        create_recipe(recipe),
        device=asked.device,
        precision=asked.precision,
        compile=False,
        early_sizes=(),
        early_shares=(),
    )


def thread_turn(config: Config, pieces: int) -> list[float]:
    """Time training steps in a process that has never used another number of threads."""
    return step_block(config, config.image_size)(pieces)


def thread_block(process: ProcessPoolExecutor, config: Config) -> Block:
    """Return `thread_turn` as a block that runs in `process`."""
    return lambda pieces: process.submit(thread_turn, config, pieces).result()


def batch_sizes(config: Config) -> list[int]:
    """Return a quarter of the recipe's batch, a half, the whole and the double."""
    return [config.batch_size * factor // 4 for factor in (1, 2, 4, 8)]


def thread_counts() -> list[int]:
    """Return 1, 2, 4, ... and the number of cores."""
    cores = os.cpu_count() or 1
    return sorted({2**power for power in range(cores.bit_length())} | {cores})


def of_batch_sizes(asked: Asked) -> Table:
    """Return the table of batch sizes."""
    rows, samples = [], {}
    for recipe in RECIPES:
        config = at_full_size(recipe, asked)
        sizes = batch_sizes(config)
        blocks = {
            str(size): step_block(dataclasses.replace(config, batch_size=size), config.image_size)
            for size in sizes
        }
        seconds = measure(blocks, asked)
        per_image = {size: [s / size for s in seconds[str(size)]] for size in sizes}
        rows += [
            [
                f"{recipe} ({config.model})",
                str(size),
                f"{statistics.median(seconds[str(size)]) * 1e3:,.1f}",
                f"{1 / statistics.median(per_image[size]):,.0f}",
                spread(speed_ratios(per_image[size], per_image[config.batch_size])),
            ]
            for size in sizes
        ]
        samples[recipe] = seconds
        blocks.clear()
        forget()
    return Table(
        name="scaling_batch",
        title="Cost against batch size",
        how=how(asked, "at the last image size of the recipe"),
        head=[
            "Recipe",
            "Batch",
            "ms a step",
            "Images/s",
            "Images/s to those of the recipe's batch",
        ],
        rows=rows,
        samples={"seconds_per_step": samples},
    )


def of_threads(asked: Asked) -> Table:
    """Return the table of thread counts; each has its own process: thread pools never shrink."""
    rows, samples = [], {}
    for recipe in RECIPES:
        config = at_full_size(recipe, asked)
        with ExitStack() as processes:
            blocks = {
                str(count): thread_block(
                    processes.enter_context(fresh_process()),
                    dataclasses.replace(config, num_threads=count),
                )
                for count in thread_counts()
            }
            seconds = measure(blocks, asked)
        rows += [
            [
                f"{recipe} ({config.model})",
                count,
                f"{config.batch_size / statistics.median(values):,.0f}",
                spread(speed_ratios(values, seconds["1"])),
            ]
            for count, values in seconds.items()
        ]
        samples[recipe] = seconds
    return Table(
        name="scaling_threads",
        title="Cost against threads",
        how=how(asked, "each number of threads in a process of its own"),
        head=["Recipe", "Threads", "Images/s", "Images/s to those of one thread"],
        rows=rows,
        samples={"seconds_per_step": samples},
    )


def tables(asked: Asked) -> Iterator[Table]:
    """Yield the table of batch sizes and, on a CPU, that of thread counts."""
    yield of_batch_sizes(asked)
    if asked.device == "cpu":
        yield of_threads(asked)


def measure(blocks: dict[str, Block], asked: Asked) -> dict[str, list[float]]:
    """Return the mean seconds a step of each block in each round."""
    turns = take_turns(blocks, rounds=asked.rounds, turn_seconds=asked.turn_seconds)
    return mean_of_turns(turns)


def how(asked: Asked, what: str) -> str:
    """Return the sentence above a table."""
    return HOW.format(precision=asked.precision, what=what, rounds=asked.rounds)


if __name__ == "__main__":
    main({"scaling": tables})
