"""A tiny network trained on drawn pictures, and its folders as `push` writes them."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from resnet_cifar100.errors import ExportError
from resnet_cifar100.export.web import fetch_runtime
from tests.analysis.test_analyze import train
from tests.conftest import REPOSITORY


@dataclass
class Released:
    checkpoint: Path
    model: Path
    space: Path
    output: str


def run_command(*words: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess:
    """Run a command of the project in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "resnet_cifar100", *map(str, words)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", **environment},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="session")
def released(tiny_data_dir, tmp_path_factory) -> Released:
    folder = tmp_path_factory.mktemp("released")
    checkpoint = train(folder, tiny_data_dir, epochs=2) / "best_model.pth"
    words = ["push", "--repo", "tester/net", "--space", "--dry-run", "--out", "hub"]
    done = run_command(*words, "--checkpoint-path", checkpoint, cwd=folder)
    assert done.returncode == 0, done.stderr
    return Released(checkpoint, folder / "hub/model", folder / "hub/space", done.stdout)


@pytest.fixture(scope="session")
def runtime(tmp_path_factory) -> Path:
    """ONNX Runtime for browsers; where npm cannot get it, the tests that ask are skipped."""
    try:
        return fetch_runtime(tmp_path_factory.mktemp("runtime"))
    except ExportError as error:
        if "check the network" not in str(error):
            raise
        pytest.skip(str(error))
