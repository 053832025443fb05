"""Python in a process of its own, as a user starts it."""

import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import REPOSITORY


def surroundings(**changes: str) -> dict[str, str]:
    """Return the environment of a process that finds the package from any folder."""
    ours = {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
    return {**os.environ, **ours, **changes}


def run(
    *words: object, cwd: Path = REPOSITORY, timeout: float = 300, **changes: str
) -> subprocess.CompletedProcess[str]:
    """Run Python with these words, and changes to its environment, to its end."""
    return subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=cwd,
        env=surroundings(**changes),
        capture_output=True,
        text=True,
        timeout=timeout,
    )
