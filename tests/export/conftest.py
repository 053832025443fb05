"""A tiny network trained on drawn pictures, and its folders as `push` writes them."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from resnet_cifar100.errors import ExportError
from resnet_cifar100.export.onnx import save_onnx
from resnet_cifar100.export.web import fetch_runtime
from tests.analysis.test_analyze import train
from tests.export.hub_server import HubServer
from tests.processes import run


@dataclass
class Released:
    checkpoint: Path
    model: Path
    space: Path
    output: str


@pytest.fixture(scope="session")
def checkpoint(tiny_data_dir, tmp_path_factory) -> Path:
    return train(tmp_path_factory.mktemp("trained"), tiny_data_dir, epochs=2) / "best_model.pth"


@pytest.fixture(scope="session")
def released(checkpoint, tmp_path_factory) -> Released:
    folder = tmp_path_factory.mktemp("released")
    words = ["push", "--repo", "tester/net", "--space", "--dry-run", "--out", "hub"]
    done = run("-m", "resnet_cifar100", *words, "--checkpoint-path", checkpoint, cwd=folder)
    assert done.returncode == 0, done.stderr
    return Released(checkpoint, folder / "hub/model", folder / "hub/space", done.stdout)


@pytest.fixture(scope="session")
def _running_hub():
    with HubServer() as server:
        yield server


@pytest.fixture
def hub(_running_hub) -> HubServer:
    """A Hub that nobody has pushed to."""
    for kept in ("repos", "requests", "faults", "objects"):
        getattr(_running_hub, kept).clear()
    return _running_hub


@pytest.fixture(scope="session")
def runtime(tmp_path_factory) -> Path:
    """ONNX Runtime for browsers; where npm cannot get it, the tests that ask are skipped."""
    try:
        return fetch_runtime(tmp_path_factory.mktemp("runtime"))
    except ExportError as error:
        if "check the network" not in str(error):
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def shipped_onnx(shipped, tmp_path_factory) -> Path:
    """The network that comes with the repository as an ONNX file; nobody may write to it."""
    path = tmp_path_factory.mktemp("shipped") / "model.onnx"
    save_onnx(shipped, path)
    return path
