"""How long whole trainings take to a top-1 on the test set, over several seeds.

    python -m benchmarks.time_to_accuracy --device cuda --seeds 10 --out FOLDER
    python -m benchmarks.time_to_accuracy --recipe smoke --epochs 1 --seeds 2

The recipe is `fast` unless told, and all flags of train.py can be added. With --out, seeds that are
in its result.json already are not trained again.
"""

import dataclasses
import json
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.page import WHOLE, Asked, Table, main
from resnet_cifar100.cli.screen import console
from resnet_cifar100.cli.train import training_settings
from resnet_cifar100.config import Config
from resnet_cifar100.data.cifar100 import load_dataset
from resnet_cifar100.engine.record import RunRecord
from resnet_cifar100.engine.trainer import fit
from resnet_cifar100.errors import ConfigError
from resnet_cifar100.recipes import training_command
from resnet_cifar100.runtime import choose_device, describe_device, environment

TARGET = 0.75
COMPILED = f"{WHOLE}_compiled"
HOW = (
    "`{command}` on {title}, one training for each seed. Test top-1 is that of the final weights. "
    "Seconds are of training steps with their loading, as `train.py` counts them: without "
    "evaluation, and without what comes before the first step. Of that, compiling and capturing is "
    "the column Warm-up; making the network and padding the images is in none. At {target:.0%}: "
    "the seconds until the first epoch that ended with at least that, for seeds whose final "
    "weights have it; the curve chooses nothing. The spread is the standard deviation over seeds."
)


def settings_of(asked: Asked, seed: int) -> Config:
    """Return the settings of the training of one seed."""
    config, _ = training_settings(["--recipe", "fast", *asked.training_flags])
    return dataclasses.replace(config, seed=seed, device=asked.device)


def train(config: Config) -> RunRecord:
    """Train in a temporary folder; return the record."""
    dataset = load_dataset(config)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        config = dataclasses.replace(
            config, checkpoint_path=folder / "best_model.pth", log_file=folder / "logs.md"
        )
        return fit(config, dataset, folder / "run", console)


def outcome(record: RunRecord) -> dict[str, Any]:
    """Return what one seed adds to the table."""
    history, result = record.history, record.result or {}
    return {
        "title": record.title,
        "seed": record.config.seed,
        "top1": result["test/top1"],
        "train_seconds": history.train_seconds,
        "warmup_seconds": history.warmup_seconds,
        "seconds_to_target": seconds_to_target(history.epochs, result["test/top1"]),
        "epochs": history.epochs,
        "commit": record.environments[-1]["commit"],
    }


def seconds_to_target(epochs: Sequence[dict[str, float]], final: float) -> float | None:
    """Return the training time at the first epoch with the target, if the final weights have it."""
    if final < TARGET:
        return None
    return next((e["train_seconds"] for e in epochs if e.get("test/top1", 0.0) >= TARGET), None)


def earlier_outcomes(asked: Asked, name: str, key: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the seeds that --out holds already.

    Raises:
        ConfigError: where they are of other settings, or of code that is not known to be the same.
    """
    table = asked.earlier.get(name)
    if table is None:
        return []
    if table.samples["key"] != key or key["uncommitted_changes"]:
        raise ConfigError(
            "--out holds seeds of other settings, another commit or uncommitted changes: name "
            "another folder"
        )
    return list(table.samples["outcomes"])  # more than are asked for now, perhaps: none is lost


def key_of(asked: Asked) -> dict[str, Any]:
    """Return all that seeds of one table share: settings, device, commit and version of torch."""
    settings = json.loads(settings_of(asked, seed=0).to_json())
    device = describe_device(choose_device(asked.device))
    here = environment(choose_device(asked.device))
    return {
        "settings": settings,
        "device": device,
        "commit": here["commit"],
        "uncommitted_changes": here["uncommitted_changes"],
        "torch": str(torch.__version__),
    }


def rows(outcomes: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Return a row for each seed, and one with mean and standard deviation."""
    columns = ("top1", "train_seconds", "warmup_seconds", "seconds_to_target")
    found = [[str(o["seed"]), *(_cell(column, o[column]) for column in columns)] for o in outcomes]
    summary = [f"mean of {len(outcomes)}"]
    for column in columns:
        values = [o[column] for o in outcomes if o[column] is not None]
        summary.append(_mean_cell(column, values, len(outcomes)))
    return [*found, summary]


def _cell(column: str, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2%}" if column == "top1" else f"{value:,.2f}"


def _mean_cell(column: str, values: Sequence[float], count: int) -> str:
    if not values:
        return "-"
    text = _cell(column, statistics.fmean(values))
    if len(values) > 1:
        text += f" +- {_cell(column, statistics.stdev(values))}"
    return text if len(values) == count else f"{text} ({len(values)} of {count} seeds)"


def table_of(asked: Asked, name: str, key: dict[str, Any], outcomes: list[dict[str, Any]]) -> Table:
    """Return the table of the seeds so far."""
    command = training_command(settings_of(asked, seed=0))
    reached = sum(o["top1"] >= TARGET for o in outcomes)
    mean = statistics.fmean(o["top1"] for o in outcomes)
    title = " and ".join(sorted({o["title"] for o in outcomes}))
    return Table(
        name=name,
        title=f"Time to {TARGET:.0%}{', compiled' if name == COMPILED else ''}",
        how=HOW.format(command=command, title=title, target=TARGET),
        head=["Seed", "Test top-1", "Training s", "Warm-up s", f"At {TARGET:.0%} s"],
        rows=rows(outcomes),
        samples={"key": key, "outcomes": outcomes},
        notes=[
            f"{reached} of {len(outcomes)} seeds end at {TARGET:.0%} or more; the mean of all is "
            f"{mean:.2%}."
        ],
    )


def tables(asked: Asked, name: str = WHOLE) -> Iterator[Table]:
    """Yield the table anew after each seed, so that a stopped call loses one training at most."""
    key = key_of(asked)
    outcomes = earlier_outcomes(asked, name, key)
    done = {o["seed"] for o in outcomes}
    for seed in range(asked.seeds):
        if seed not in done:
            outcomes.append(outcome(train(settings_of(asked, seed))))
        outcomes.sort(key=lambda o: int(o["seed"]))
        yield table_of(asked, name, key, outcomes)


def compiled_tables(asked: Asked) -> Iterator[Table]:
    """Yield the same of compiled networks: which of the two is faster is not known beforehand."""
    flags = (*asked.training_flags, "--compile")
    yield from tables(dataclasses.replace(asked, training_flags=flags), COMPILED)


if __name__ == "__main__":
    main({WHOLE: tables})
