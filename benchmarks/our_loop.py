"""The training step of `train.py`, prepared as the trainer prepares it, for timing."""

import dataclasses
import gc
import itertools
from collections.abc import Iterator
from functools import cache

import torch
from torch import Tensor

from benchmarks.images import training_split
from benchmarks.measure import Block, seconds_per_piece
from resnet_cifar100.cli.screen import say
from resnet_cifar100.config import Config
from resnet_cifar100.data.loader import TrainLoader
from resnet_cifar100.engine.schedule import image_size_at
from resnet_cifar100.engine.state import TrainState, create_state
from resnet_cifar100.engine.step import train_step, warm_up
from resnet_cifar100.models.summary import summarize
from resnet_cifar100.parallel import world_size
from resnet_cifar100.runtime import create_runtime


@cache
def ready_state(
    config: Config, layout: torch.memory_format = torch.channels_last
) -> tuple[TrainState, TrainLoader]:
    """Return a state that has compiled all it needs, and its loader; made once in a process.

    A layout other than that of `train.py` is for runs that are not compiled.

    Raises:
        RuntimeError: where a GPU does not capture the step.
    """
    runtime = create_runtime(config)
    loader = TrainLoader(training_split().to(runtime.device), config)
    state = create_state(config, runtime, loader)
    if layout != torch.channels_last:
        state.model.to(memory_format=layout)
        state.preprocess.register_forward_hook(lambda _module, _inputs, images: images.contiguous())
    if runtime.is_compiled or runtime.device.type == "cuda":
        note = warm_up(state, *next(loader.batches(0)))
        say(note)
        if runtime.device.type == "cuda" and not state.graphs and world_size() == 1:
            raise RuntimeError(note)  # `train.py` goes on uncaptured; that is not to be timed
    state.model.train()
    return state, loader


@cache
def step_block(
    config: Config, image_size: int, layout: torch.memory_format = torch.channels_last
) -> Block:
    """Return the training step at one of the image sizes of `config`, loading included."""
    state, loader = ready_state(config, layout)
    first_step = steps_by_size(config, len(loader))[image_size][0]
    batches = endless(loader)

    def piece() -> None:
        state.step = first_step  # the size of the images follows from the step
        train_step(state, *next(batches))

    return lambda pieces: [seconds_per_piece(piece, pieces, state.runtime.device)]


def forget() -> None:
    """Let go of all states of this process: together they are 20 GB in the whole benchmark."""
    step_block.cache_clear()
    ready_state.cache_clear()
    gc.collect()
    torch.cuda.empty_cache()  # nothing where no GPU is in use


def load_block(config: Config, image_size: int) -> Block:
    """Return the loader alone, as far as the normalised images that the network takes."""
    state, loader = ready_state(config)
    batches = endless(loader)

    def piece() -> None:
        state.preprocess(next(batches)[0], image_size)

    return lambda pieces: [seconds_per_piece(piece, pieces, state.runtime.device)]


def endless(loader: TrainLoader) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the batches of epoch 0, 1, 2, ..."""
    return itertools.chain.from_iterable(map(loader.batches, itertools.count()))


def steps_by_size(config: Config, steps_per_epoch: int) -> dict[int, list[int]]:
    """Return the steps of a whole run at each size of images, the smallest size first."""
    steps: dict[int, list[int]] = {}
    for step in range(config.epochs * steps_per_epoch):
        size = image_size_at(step, config, steps_per_epoch=steps_per_epoch)
        steps.setdefault(size, []).append(step)
    return steps


def step_flop(config: Config, image_size: int) -> int:
    """Return the nominal operations of a step: six for each multiply-add of the forward pass.

    Two in the forward pass and twice that in the backward pass, as if every convolution were done
    as it is defined; what a faster algorithm saves still counts.
    """
    model_config = dataclasses.replace(config.model_config, image_size=image_size)
    return 6 * summarize(model_config).multiply_adds * config.batch_size


def dtype_of(precision: str) -> torch.dtype:
    """Return the type that a setting of precision multiplies in."""
    return {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
