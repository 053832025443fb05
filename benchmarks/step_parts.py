"""Where the time of a training step goes: loading, augmentation, network, optimizers.

python -m benchmarks.step_parts [--device cpu] [--rounds N]
"""

import dataclasses
import statistics
from collections.abc import Callable, Iterator, Mapping

import torch.nn.functional as F

from benchmarks.measure import mean_of_turns, seconds_per_piece, take_turns
from benchmarks.our_loop import endless, forget, ready_state, step_block
from benchmarks.page import Asked, Table, main
from resnet_cifar100.config import Config
from resnet_cifar100.data.augment import seeded_generator
from resnet_cifar100.data.loader import TrainLoader
from resnet_cifar100.engine.step import set_lr
from resnet_cifar100.recipes import create_recipe

RECIPES = ("reference", "fast", "fast_resnet44v2")
STEP = "step"
PARTS = ("crops", "augment", "preprocess", "network", "optimizers")
HOW = (
    "The recipes with `--augment trivial_augment`, eager, in {precision}. Each part is timed alone "
    "on one batch: crops and flips; TrivialAugment (the loader does 2,048 "
    "images at once, which a GPU does sooner); preprocessing, the resize to the side in the table "
    "and normalisation; the network forward and backward with its loss; all optimizers. Shares are "
    "of the whole step, on a GPU too without the CUDA graph that `train.py` replays. Medians over "
    "{rounds} rounds in which the step and its parts take turns; two rounds before them are not "
    "counted. What is wanting to 100% is noise and, on a CPU, the check for finite numbers."
)


def part_pieces(config: Config, image_size: int) -> dict[str, Callable[[], object]]:
    """Return what each part of a step does with one batch, in the order of PARTS."""
    state, loader = ready_state(config)
    crops = endless(TrainLoader(loader.split, dataclasses.replace(config, augment=())))
    images, targets = next(crops)
    pixels = state.preprocess(images, image_size)

    def network() -> None:
        state.model.zero_grad()
        with state.runtime.autocast():
            loss = F.cross_entropy(state.forward(pixels).float(), targets)
        loss.backward()

    def optimizers() -> None:
        """Take the steps that cost what all steps cost, and lead nowhere."""
        for optimizer in state.optimizers:
            for group in optimizer.param_groups:
                set_lr(group, 0.0)
            optimizer.step()

    return {
        "crops": lambda: next(crops),
        "augment": lambda: loader.augment.change(images, seeded_generator(0)),
        "preprocess": lambda: state.preprocess(images, image_size),
        "network": network,
        "optimizers": optimizers,
    }


def measure(config: Config, image_size: int, asked: Asked) -> dict[str, list[float]]:
    """Return the seconds of a step and of each of its parts, in each round."""
    state, _ = ready_state(config)
    state.graphs.clear()  # the parts are not captured, so neither is the step
    device = state.runtime.device
    blocks = {
        name: lambda pieces, piece=piece: [seconds_per_piece(piece, pieces, device)]
        for name, piece in part_pieces(config, image_size).items()
    }
    turns = take_turns(
        {STEP: step_block(config, image_size), **blocks},
        rounds=asked.rounds,
        turn_seconds=asked.turn_seconds,
    )
    return mean_of_turns(turns)


def row(config: Config, image_size: int, seconds: Mapping[str, list[float]]) -> list[str]:
    """Return the row of the table."""
    median = {name: statistics.median(values) for name, values in seconds.items()}
    shares = [f"{median[name] / median[STEP]:.2%}" for name in PARTS]
    name = f"{config.recipe} ({config.model})"
    batch, step_ms = str(config.batch_size), f"{median[STEP] * 1e3:,.1f}"
    return [name, batch, str(image_size), step_ms, *shares]


def tables(asked: Asked) -> Iterator[Table]:
    """Yield one table: each recipe at each of its image sizes."""
    rows, samples = [], {}
    for recipe in RECIPES:
        config = dataclasses.replace(
            create_recipe(recipe),
            device=asked.device,
            precision=asked.precision,
            compile=False,
            augment=("trivial_augment",),
        )
        for image_size in config.image_sizes:
            seconds = measure(config, image_size, asked)
            rows.append(row(config, image_size, seconds))
            samples[f"{recipe}, {image_size} px"] = seconds
        forget()
    yield Table(
        name="step_parts",
        title="Parts of a training step",
        how=HOW.format(precision=asked.precision, rounds=asked.rounds),
        head=["Recipe", "Batch", "Side", "Step, ms", *(part.capitalize() for part in PARTS)],
        rows=rows,
        samples={"seconds": samples},
        notes=asked.notes,
    )


if __name__ == "__main__":
    main({"step_parts": tables})
