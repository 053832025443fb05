"""How long a prediction takes: one image at a time, and a batch at a time.

python -m benchmarks.inference [--device cpu] [--rounds N]
"""

import dataclasses
import statistics
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor

from benchmarks.images import training_split
from benchmarks.measure import (
    Block,
    mean_of_turns,
    seconds_per_piece,
    speed_ratios,
    spread,
    take_turns,
)
from benchmarks.page import Asked, Table, main
from resnet_cifar100.config import Config
from resnet_cifar100.data.transforms import Preprocess
from resnet_cifar100.engine.evaluate import EVAL_BATCH_SIZE
from resnet_cifar100.models.factory import create_model
from resnet_cifar100.recipes import create_recipe
from resnet_cifar100.runtime import create_runtime

CALLS = 100  # of which each is timed, in a turn
FIRST = "eager, fp32"
HEAD = [
    *("Network", "Variant", "One image, p50 ms", "p99 ms"),
    *(f"Batch {EVAL_BATCH_SIZE}, images/s", "Ratio of images/s"),
]
HOW = (
    "From uint8 images on the device to logits, preprocessing included, with random weights. "
    "One image: percentiles over all calls; images/s: the median over {rounds} rounds, in which "
    "the rows of one network take turns; two rounds before them are not counted; ratios are to the "
    "first row of the network within a round: median, and lowest to highest."
)


def predictors(config: Config, asked: Asked) -> dict[str, Callable[[Tensor], Tensor]]:
    """Return the ways to predict: eager in each precision, compiled in that of the runtime."""
    ways = {f"eager, {p}": dataclasses.replace(config, precision=p) for p in asked.precisions}
    if not asked.compile_fault:
        compiled = dataclasses.replace(config, precision=asked.precision, compile=True)
        ways[f"compiled, {asked.precision}"] = compiled
    return {name: predictor(settings) for name, settings in ways.items()}


def predictor(config: Config) -> Callable[[Tensor], Tensor]:
    """Return the function from uint8 images (N,3,32,32) to logits (N,K)."""
    runtime = create_runtime(config)
    preprocess = Preprocess(config.image_size).to(runtime.device)
    forward = runtime.compile(create_model(config.model_config).to(runtime.device).eval())

    @torch.inference_mode()
    def predict(images: Tensor) -> Tensor:
        with runtime.autocast():
            return forward(preprocess(images))

    return predict


def call_block(piece: Callable[[], object], device: torch.device) -> Block:
    """Return a block that times CALLS calls, or the one of an uncounted round, each by itself."""
    return lambda pieces: [
        seconds_per_piece(piece, 1, device) for _ in range(CALLS if pieces > 1 else 1)
    ]


def batch_block(piece: Callable[[], object], device: torch.device) -> Block:
    """Return a block that times its calls together."""
    return lambda pieces: [seconds_per_piece(piece, pieces, device)]


def measure(config: Config, asked: Asked) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Return the seconds of each call with one image, and of a batch in each round, by variant."""
    device = torch.device(asked.device)
    images = training_split().images[:EVAL_BATCH_SIZE].to(device)
    ways = predictors(config, asked)
    for predict in ways.values():  # compiles, chooses kernels
        predict(images[:1])
        predict(images)
    singly = take_turns(
        {name: call_block(partial(predict, images[:1]), device) for name, predict in ways.items()},
        rounds=asked.rounds,
        turn_seconds=asked.turn_seconds,
    )
    together = take_turns(
        {name: batch_block(partial(predict, images), device) for name, predict in ways.items()},
        rounds=asked.rounds,
        turn_seconds=asked.turn_seconds,
    )
    calls = {name: [call for turn in turns for call in turn] for name, turns in singly.items()}
    return calls, mean_of_turns(together)


def rows(
    label: str, calls: dict[str, list[float]], batches: dict[str, list[float]]
) -> list[list[str]]:
    """Return (network, variant, p50, p99, images/s, ratio of images/s)."""
    return [
        [
            label,
            name,
            *(f"{1e3 * value:,.2f}" for value in np.percentile(calls[name], [50, 99])),
            f"{EVAL_BATCH_SIZE / statistics.median(seconds):,.0f}",
            spread(speed_ratios(seconds, batches[FIRST])),
        ]
        for name, seconds in batches.items()
    ]


def tables(asked: Asked) -> Iterator[Table]:
    """Yield one table: the networks of the reference recipe and of the fast one."""
    found, samples = [], {}
    for recipe in ("reference", "fast"):
        config = dataclasses.replace(create_recipe(recipe), device=asked.device, compile=False)
        calls, batches = measure(config, asked)
        found += rows(f"{config.model}, width {config.width:g}", calls, batches)
        samples[recipe] = {"seconds_per_call": calls, "seconds_per_batch": batches}
    yield Table(
        name="inference",
        title="Inference",
        how=HOW.format(rounds=asked.rounds),
        head=HEAD,
        rows=found,
        samples={"batch_size": EVAL_BATCH_SIZE, **samples},
        notes=asked.notes,
    )


if __name__ == "__main__":
    main({"inference": tables})
