"""What a benchmark leaves: tables on the screen, result.json with all samples, and README.md.

Both files are written after each table, and tables that are there already stay: a benchmark that
was stopped goes on with --only and the same --out.
"""

import argparse
import dataclasses
import json
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Literal

import torch

from resnet_cifar100.cli.screen import say, show_fault
from resnet_cifar100.config import Config
from resnet_cifar100.errors import ProjectError
from resnet_cifar100.markdown import markdown_table
from resnet_cifar100.runtime import CPU, create_runtime, environment
from resnet_cifar100.storage import replace_file

ROUNDS = {"cpu": 3, "cuda": 10}
WHOLE = "time_to_accuracy"  # how the names of benchmarks of whole trainings begin
MODELS = ("resnet44v2", "fast_resnet44v2", "resnet18", "speednet")


@dataclass
class Table:
    """One table with all that was measured for it. `how` is the sentence that stands above it."""

    name: str
    title: str
    how: str
    head: list[str]
    rows: list[list[str]]
    samples: dict[str, Any]
    notes: list[str] = field(default_factory=list)
    environment: dict[str, Any] = field(default_factory=dict)

    def markdown(self) -> str:
        """Return the section of the page."""
        parts = [f"## {self.title}\n", f"{self.how}\n", markdown_table(self.head, self.rows)]
        return "\n".join([*parts, *(f"{note}\n" for note in self.notes)])


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the command line asks for, and what this machine answers to it."""

    device: str
    rounds: int
    turn_seconds: float
    models: tuple[str, ...] = MODELS
    precision: Literal["fp32", "bf16"]
    """What `--precision auto` is on this device."""
    compile_fault: str
    """Why there is no compiled variant; empty where there is."""
    seeds: int = 10
    training_flags: tuple[str, ...] = ()
    """Of train.py, for whole trainings."""
    earlier: Mapping[str, Table] = field(default_factory=dict)

    @property
    def precisions(self) -> list[Literal["fp32", "bf16"]]:
        """fp32, and what `auto` is where that differs."""
        return list(dict.fromkeys(("fp32", self.precision)))

    @property
    def notes(self) -> list[str]:
        """What to say below a table that lacks its compiled variants."""
        return [self.compile_fault] if self.compile_fault else []


Maker = Callable[[Asked], Iterator[Table]]


def main(makers: Mapping[str, Maker], argv: Sequence[str] | None = None) -> None:
    """Make the tables that the command line asks for, print them, and write them to --out.

    One that fails does not keep the others from being made; the exit code is 1 then.
    """
    parser = _parser(makers)
    flags, training_flags = parser.parse_known_args(argv)
    names = flags.only or _usual(makers, flags.device)
    if training_flags and not any(name.startswith(WHOLE) for name in names):
        parser.error(f"unrecognized arguments: {' '.join(training_flags)}")
    out: Path | None = flags.out
    if out is None and len(makers) > 1:
        kind = "gpu" if flags.device == "cuda" else "cpu"
        out = Path("records") / f"{date.today().isoformat()}_bench-{kind}"
    asked = _asked(flags, tuple(training_flags), read_tables(out))
    # One network is compiled for many sizes; at its limit torch would go on eager, unasked.
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
        failed = []
        for name in names:
            try:
                for table in makers[name](asked):
                    keep(table, out, torch.device(asked.device))
            except Exception as error:  # whatever it is, hours of measuring may be left
                failed.append(name)
                if isinstance(error, ProjectError):
                    show_fault(str(error))
                else:
                    traceback.print_exc()
    if out:
        say(f"Written to {out}/")
    if failed:
        say(f"Failed: {', '.join(failed)}. Again with: --only {','.join(failed)}")
        sys.exit(1)


def keep(table: Table, out: Path | None, device: torch.device = CPU) -> None:
    """Stamp a table, print it, and write it to `out`, where it replaces the one of its name."""
    table.environment = environment(device)
    say(f"\n{table.markdown()}")
    if out:
        _write_tables(out, {**read_tables(out), table.name: table})


def read_tables(out: Path | None) -> dict[str, Table]:
    """Return the tables that an earlier call left in `out`, by name."""
    path = out / "result.json" if out else None
    if path is None or not path.exists():
        return {}
    return {name: Table(name=name, **table) for name, table in json.loads(path.read_text()).items()}


def _write_tables(out: Path, tables: Mapping[str, Table]) -> None:
    """Write result.json and README.md."""
    content = {name: dataclasses.asdict(table) for name, table in tables.items()}
    for table in content.values():
        del table["name"]
    text = json.dumps(content, indent=1, default=str)
    # A list of numbers on one line, however many they are.
    text = re.sub(r"\[[\s\d.,e+-]*\]", lambda numbers: " ".join(numbers[0].split()), text)
    replace_file(out / "result.json", text + "\n")
    replace_file(out / "README.md", render(list(tables.values())))


def render(tables: Sequence[Table]) -> str:
    """Return the whole page: the tables, and below them the machine that each was measured on."""
    measured: dict[str, list[Table]] = {}
    for table in tables:
        measured.setdefault(json.dumps(table.environment), []).append(table)
    parts = ["# Benchmarks\n", *(table.markdown() for table in tables), "## Environment\n"]
    for content, of_one in measured.items():
        rows = [(key, value) for key, value in json.loads(content).items() if value != []]
        titles = "; ".join(table.title for table in of_one)
        parts += [f"Of: {titles}.\n", markdown_table(["What", "Value"], rows)]
    return "\n".join(parts)


def _parser(makers: Mapping[str, Maker]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Measure, print tables of ratios, write --out.", allow_abbrev=False
    )
    fastest = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", choices=list(ROUNDS), default=fastest)
    parser.add_argument("--out", type=Path, help="folder for result.json and README.md")
    parser.add_argument("--rounds", type=int, help="rounds in which the variants take turns")
    parser.add_argument("--turn-seconds", type=float, default=0.5, help="at least so long a turn")
    parser.add_argument("--only", type=_names(makers), help=f"some of {', '.join(makers)}")
    parser.add_argument("--models", type=_names(MODELS), default=MODELS, help="for the steps")
    accuracy = parser.add_argument_group(WHOLE, "whole trainings; takes flags of train.py besides")
    accuracy.add_argument("--seeds", type=int, default=10)
    return parser


def _names(known: Mapping[str, Maker] | Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    """Return a reader of names with commas between them."""

    def names(text: str) -> tuple[str, ...]:
        if unknown := sorted({*text.split(",")} - {*known}):
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not in {', '.join(known)}")
        return tuple(text.split(","))

    return names


def _usual(makers: Mapping[str, Maker], device: str) -> list[str]:
    """Return all that are meant for the device: whole trainings are for a GPU, unless alone."""
    is_of_trainings = device == "cuda" or len(makers) == 1
    return [name for name in makers if is_of_trainings or not name.startswith(WHOLE)]


def _asked(
    flags: argparse.Namespace, training_flags: tuple[str, ...], earlier: Mapping[str, Table]
) -> Asked:
    runtime = create_runtime(Config(device=flags.device, compile=True))
    faults = [note for note in runtime.notes if note.startswith("Not compiled")]
    return Asked(
        device=flags.device,
        rounds=flags.rounds or ROUNDS[flags.device],
        turn_seconds=flags.turn_seconds,
        models=flags.models,
        precision="bf16" if runtime.autocast_dtype == torch.bfloat16 else "fp32",
        compile_fault="" if runtime.is_compiled else " ".join(faults),
        seeds=flags.seeds,
        training_flags=training_flags,
        earlier=dict(earlier),
    )
