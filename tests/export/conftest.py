"""A tiny network trained on drawn pictures, and its folders as `push` writes them."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from resnet_cifar100.errors import ExportError
from resnet_cifar100.export.onnx import save_onnx
from resnet_cifar100.export.web import fetch_runtime
from tests.analysis.test_analyze import train
from tests.export.hub_server import HubServer
from tests.export.hub_store import Repo, environment
from tests.processes import run


@dataclass
class Released:
    checkpoint: Path
    model: Path
    space: Path
    output: str
    repos: dict[tuple[str, str], Repo]  # what the Hub had then


@pytest.fixture(scope="session")
def checkpoint(tiny_data_dir, tmp_path_factory) -> Path:
    return train(tmp_path_factory.mktemp("trained"), tiny_data_dir, epochs=2) / "best_model.pth"


@pytest.fixture(scope="session")
def _running_hub():
    with HubServer() as server:
        yield server


@pytest.fixture(scope="session")
def released(_running_hub, checkpoint, tmp_path_factory) -> Released:
    """What the command pushed to a Hub of its own."""
    folder = tmp_path_factory.mktemp("released")
    words = ["-m", "resnet_cifar100", "push", "--repo", "tester/net", "--space", "--private"]
    words += ["--out", "hub", "--checkpoint-path", checkpoint]
    before, _running_hub.repos = _running_hub.repos, {}
    done = run(*words, cwd=folder, **environment(_running_hub, tmp_path_factory.mktemp("home")))
    repos, _running_hub.repos = _running_hub.repos, before
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    return Released(checkpoint, folder / "hub/model", folder / "hub/space", output, repos)


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
