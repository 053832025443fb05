"""What a run leaves for people and programs; everything shown of it is rendered from these files.

config.json     all settings
env.json        one entry a session: versions, hardware, commit, command, changes of settings
run.json        data set, size of the network, status, result
metrics.jsonl   a row an epoch (the same in metrics.csv)
steps.jsonl     the points of the loss curve
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resnet_cifar100.config import Config
from resnet_cifar100.constants import CIFAR100, SYNTHETIC
from resnet_cifar100.engine.state import History
from resnet_cifar100.errors import CheckpointError
from resnet_cifar100.storage import replace_csv, replace_file

Row = dict[str, Any]
TITLES = (CIFAR100, SYNTHETIC)
_EPOCH_KEYS = ("epoch", "train/loss", "train/top1", "lr", "train_seconds", "speed/images_per_s")
_STEP_KEYS = ("step", "train/loss", "lr", "train_seconds")
_MEASURED = ("loss", "top1", "top5")


@dataclass
class RunRecord:
    """The whole of a run but for its weights."""

    config: Config
    environments: list[Row]
    title: str  # of the data set: CIFAR-100 or SYNTHETIC
    parameters: int
    multiply_adds: int
    steps_per_epoch: int
    status: str  # running, finished, interrupted or failed, with the reason
    history: History
    result: Row | None = None

    @property
    def train_eval_gap(self) -> float | None:
        """Top-1 on training images as they are less that on test images; earlier runs have none."""
        if not self.result or "train_eval/top1" not in self.result:
            return None
        return float(self.result["train_eval/top1"] - self.result["test/top1"])

    @property
    def is_changed(self) -> bool:
        """Whether it was resumed with other settings, so that `config` has only the last ones."""
        return any(session.get("changes") for session in self.environments)

    def save(self, folder: Path) -> None:
        """Write the files; each is replaced in one step.

        Raises:
            CheckpointError: where one cannot be written.
        """
        replace_file(folder / "config.json", self.config.to_json())
        replace_file(folder / "env.json", json.dumps(self.environments, indent=2) + "\n")
        # Each row names its data set, so that no figure from SYNTHETIC data can pass for another.
        epochs = [{"dataset": self.title, **row} for row in self.history.epochs]
        replace_file(folder / "metrics.jsonl", _json_lines(epochs))
        head = [list(epochs[0])] if epochs else []
        replace_csv(folder / "metrics.csv", [*head, *(row.values() for row in epochs)])
        steps = [{"dataset": self.title, **row} for row in self.history.steps]
        replace_file(folder / "steps.jsonl", _json_lines(steps))
        summary = {
            "title": self.title,
            "status": self.status,
            "parameters": self.parameters,
            "multiply_adds": self.multiply_adds,
            "steps_per_epoch": self.steps_per_epoch,
            "train_seconds": self.history.train_seconds,
            "warmup_seconds": self.history.warmup_seconds,
            "result": self.result,
        }
        replace_file(folder / "run.json", json.dumps(summary, indent=2) + "\n")


def load_record(folder: Path) -> RunRecord:
    """Read what `save` wrote.

    Raises:
        CheckpointError: where `folder` holds no record of a run.
    """
    try:
        summary = json.loads((folder / "run.json").read_text())
        history = History(
            epochs=_read_rows(folder / "metrics.jsonl"),
            steps=_read_rows(folder / "steps.jsonl"),
            train_seconds=summary.pop("train_seconds"),
            warmup_seconds=summary.pop("warmup_seconds", 0.0),
        )
        record = RunRecord(
            config=Config.from_json((folder / "config.json").read_text()),
            environments=json.loads((folder / "env.json").read_text()),
            history=history,
            **summary,
        )
        _check(record)
        return record
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"{folder} does not hold the record of a run ({error}); those below checkpoints/ and "
            "records/ do"
        ) from error


def _check(record: RunRecord) -> None:
    """Refuse with a ValueError what is not as `save` writes it."""
    split, result = record.history.split, record.result or {}
    rows = [
        (record.history.epochs, [*_EPOCH_KEYS, *(f"{split}/{key}" for key in _MEASURED)]),
        (record.history.steps, _STEP_KEYS),
        ([result] if result else [], [f"test/{key}" for key in _MEASURED]),
        ([result], [key for key in result if key.startswith("train_eval/")]),
        ([vars(record)], ["parameters", "multiply_adds", "steps_per_epoch"]),
        ([vars(record.history)], ["train_seconds", "warmup_seconds"]),
    ]
    for several, keys in rows:
        for row in several:
            if faults := [key for key in keys if not isinstance(row.get(key), int | float)]:
                raise ValueError(f"no number for {', '.join(faults)}")
    environments = record.environments
    if not (environments and all(isinstance(one, dict) for one in environments)):
        raise ValueError("no environment")
    if record.title not in TITLES or record.steps_per_epoch < 1:
        raise ValueError("no data set of this project")
    if result and not {"epoch", "chosen_by"} <= result.keys():
        raise ValueError("a result without its epoch")


def _json_lines(rows: Sequence[Row]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def _read_rows(path: Path) -> list[Row]:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "dataset"} for row in rows]
