"""How fast batches are loaded and augmented, beside DataLoader with Pillow.

python -m benchmarks.loader [--device cpu] [--rounds N]
"""

import dataclasses
import json
import statistics
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

from benchmarks.measure import mean_of_turns, speed_ratios, spread, take_turns
from benchmarks.our_loop import forget, load_block, step_block
from benchmarks.page import Asked, Table, main
from benchmarks.plain_loop import fresh_process, loading_block
from benchmarks.train_step import plain_settings
from resnet_cifar100.config import Config
from resnet_cifar100.recipes import create_recipe

HOW = (
    "Normalised batches of the recipe, without training on them. Theirs: DataLoader with two "
    "workers, zero-padded crop, flip and resize with Pillow one image at a time; the batches that "
    "its workers had ready before the clock started are not counted. Ours: the loader and "
    "preprocessing of `train.py`. The last column is the time of our loader within the training "
    "step of the recipe. Medians over {rounds} rounds in which the three take turns; two rounds "
    "before them are not counted; ratios are within a round: median, and lowest to highest."
)
THEIRS, OURS, STEP = "DataLoader and Pillow", "ours", "training step"
HEAD = [
    *("Recipe", "Batch", "Side", "DataLoader and Pillow, images/s", "Ours, images/s"),
    *("Ratio", "Ours within a step"),
]


def measure(
    config: Config, image_size: int, asked: Asked, process: ProcessPoolExecutor
) -> dict[str, list[float]]:
    """Return the seconds of a batch of both loaders, and of our training step, in each round."""
    blocks = {
        THEIRS: loading_block(process, plain_settings(config, image_size)),
        OURS: load_block(config, image_size),
        STEP: step_block(config, image_size),
    }
    turns = take_turns(blocks, rounds=asked.rounds, turn_seconds=asked.turn_seconds)
    return mean_of_turns(turns)


def row(config: Config, image_size: int, seconds: dict[str, list[float]]) -> list[str]:
    """Return the row of the table."""
    median = {name: statistics.median(values) for name, values in seconds.items()}
    return [
        f"{config.recipe} ({config.model})",
        str(config.batch_size),
        str(image_size),
        f"{config.batch_size / median[THEIRS]:,.0f}",
        f"{config.batch_size / median[OURS]:,.0f}",
        spread(speed_ratios(seconds[OURS], seconds[THEIRS])),
        f"{median[OURS] / median[STEP]:.2%}",
    ]


def tables(asked: Asked) -> Iterator[Table]:
    """Yield one table: the reference recipe, and the fast one at each of its image sizes."""
    rows, samples, settings = [], {}, []
    with fresh_process() as process:
        for recipe in ("reference", "fast"):
            config = dataclasses.replace(
                create_recipe(recipe), device=asked.device, precision=asked.precision
            )
            settings.append(json.loads(config.to_json()))
            for image_size in config.image_sizes:
                seconds = measure(config, image_size, asked, process)
                rows.append(row(config, image_size, seconds))
                samples[f"{recipe}, {image_size} px"] = seconds
            forget()
    yield Table(
        name="loader",
        title="Loader",
        how=HOW.format(rounds=asked.rounds),
        head=HEAD,
        rows=rows,
        samples={"settings": settings, "seconds_per_batch": samples},
        notes=asked.notes,
    )


if __name__ == "__main__":
    main({"loader": tables})
