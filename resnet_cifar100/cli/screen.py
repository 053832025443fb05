"""What the commands print through."""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console


class _Console(Console):
    """Falls silent when its reader (head, say) leaves, where rich would end the program."""

    def on_broken_pipe(self) -> None:
        """Say nothing more: a training goes on, and a command ends with 0."""
        self.quiet = True
        discard_output()


# Of several processes that train as one (parallel.py, which would import torch) the first speaks.
console = _Console(quiet=os.environ.get("RANK", "0") != "0", emoji=False)
faults = Console(stderr=True)


def discard_output() -> None:
    """Write into nothing from now on: the reader, head for example, has seen enough."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def say(text: object, style: str = "") -> None:
    """Print a sentence as it is: no colours guessed into it, wrapped by the terminal alone."""
    console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)


def write_json(answer: Mapping[str, object]) -> None:
    """Write one line for programs; after `speak_aside` nothing else is on stdout."""
    sys.stdout.write(json.dumps(answer) + "\n")


def speak_aside() -> None:
    """Say everything on stderr from now on."""
    console.stderr = True


def show_fault(message: str) -> None:
    """Print what went wrong, to stderr."""
    faults.print(message, style="bold red", highlight=False, markup=False, soft_wrap=True)


def python_command() -> str:
    """Return how to call the Python in use: by its path where it stands below this folder."""
    executable = Path(sys.executable)
    if executable.is_relative_to(Path.cwd()):
        return str(executable.relative_to(Path.cwd()))
    return "python"
