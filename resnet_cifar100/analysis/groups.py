"""Runs that belong together, and what tells one group of them from the others."""

import dataclasses
import itertools
import json
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resnet_cifar100.config import HOUSEKEEPING
from resnet_cifar100.engine.record import RunRecord

# Neither the seed nor these make a different experiment of a run.
_INCIDENTAL = HOUSEKEEPING | {"seed", "recipe", "dataset"}


@dataclass(frozen=True)
class Run:
    """A run and its folder."""

    folder: Path
    record: RunRecord

    @property
    def name(self) -> str:
        """What pages call it."""
        return name_of(self.folder)

    @property
    def top1(self) -> float | None:
        """Test top-1 of the final weights as a fraction; None for a run that is not finished."""
        result = self.record.result
        return float(result["test/top1"]) if result else None


@dataclass(frozen=True)
class Group:
    """Runs that differ in nothing but their seeds."""

    letter: str
    name: str  # what tells it from the others
    runs: tuple[Run, ...]

    @property
    def title(self) -> str:
        """Its letter and its name."""
        return f"{self.letter}: {self.name}"

    @property
    def top1(self) -> list[float]:
        """Test top-1 of each finished run that counts."""
        return [run.top1 for run in self.counted if run.top1 is not None]

    @property
    def val_top1(self) -> list[float]:
        """Highest val top-1 of each run that counts and held images out."""
        histories = [run.record.history for run in self.counted]
        return [max(one.held_out_top1) for one in histories if one.split == "val"]

    @property
    def counted(self) -> tuple[Run, ...]:
        """The first finished run of each seed; where none is finished, all of them."""
        firsts: dict[int, Run] = {}
        for run in self.runs:
            if run.top1 is not None:
                firsts.setdefault(run.record.config.seed, run)
        return tuple(firsts.values()) or self.runs


def name_of(folder: Path) -> str:
    """Return the last two parts of the path of a run: seed0 alone would tell little."""
    return "/".join(folder.resolve().parts[-2:])


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """Return the runs by settings, in the order of their first runs, named A, B and so on."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(json.dumps(settings_of(run.record), default=str), []).append(run)
    firsts = [members[0].record for members in groups.values()]
    return [
        Group(letter, name, tuple(members))
        for letter, name, members in zip(letters(), _names(firsts), groups.values(), strict=False)
    ]


def differing_settings(records: Sequence[RunRecord]) -> list[str]:
    """Return the names of the settings, and of the data set, that are not the same in all."""
    settings = [settings_of(record) for record in records]
    return [name for name in settings[0] if len({str(one[name]) for one in settings}) > 1]


def settings_of(record: RunRecord) -> dict[str, Any]:
    """Return what makes an experiment of a run, by name: its settings and its data set."""
    values = {"data set": record.title, **dataclasses.asdict(record.config)}
    if teacher := record.environments[-1].get("teacher"):  # not where it lies, but which it is
        values["teacher"] = f"SHA-256 {teacher.rpartition(' ')[2][:10]}"
    words = {
        name: " ".join(map(str, v)) or "none" for name, v in values.items() if isinstance(v, tuple)
    }
    return {name: v for name, v in {**values, **words}.items() if name not in _INCIDENTAL}


def letters() -> Iterator[str]:
    """Yield the letters of groups: A, B, ..., Z, AA, AB, ..."""
    for length in itertools.count(1):
        yield from map("".join, itertools.product(string.ascii_uppercase, repeat=length))


def _names(firsts: Sequence[RunRecord]) -> list[str]:
    """Return a few words for each group: its recipe where no two share one, else its settings."""
    recipes = [f"recipe {record.config.recipe}" for record in firsts]
    if len(set(recipes)) == len(firsts):
        return recipes
    every = differing_settings(firsts)
    own = [every, *(differing_settings([firsts[0], record]) for record in firsts[1:])]
    for most in range(2, max(2, len(every)) + 1):
        names = [
            ", ".join(f"{name} {settings_of(record)[name]}" for name in names[:most])
            + (", ..." if len(names) > most else "")
            for names, record in zip(own, firsts, strict=True)
        ]
        if len(set(names[1:])) == len(names) - 1:
            break
    return [recipes[0] if len(every) > 2 else names[0], *names[1:]]
