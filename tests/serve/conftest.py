"""A real server in a process of its own, with the weights that come with the repository."""

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from resnet_cifar100.config import SHIPPED_MODEL
from resnet_cifar100.data.drawings import write_drawings
from resnet_cifar100.serve.networks import open_network
from resnet_cifar100.serve.predictor import Predictor
from tests.conftest import REPOSITORY


@dataclass
class LiveServer:
    url: str
    process: subprocess.Popen
    log: Path
    uploads: Path


@contextlib.contextmanager
def live_server(folder: Path, *flags: str, **environment: str) -> Iterator[LiveServer]:
    """Start the app from `folder`; at the end stop it and see what it logged and left."""
    log = folder / "stderr.txt"
    command = [sys.executable, str(REPOSITORY / "huggingface_app" / "app.py"), "--port", "0"]
    command += ["--checkpoint-path", str(REPOSITORY / SHIPPED_MODEL), *flags]
    temporary, home = folder / "tmp", folder / "home"
    for place in (temporary, home):
        place.mkdir(exist_ok=True)
    ours = {"TMPDIR": str(temporary), "HOME": str(home), "OMP_NUM_THREADS": "1"}
    with log.open("w") as stderr:
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env={**os.environ, **ours, **environment},
        )
        url, said = None, []
        while url is None and (line := process.stdout.readline()):
            said.append(line)
            url = re.search(r"http://[\d.]+:\d+", line)
        assert url, "".join(said) + log.read_text()
        httpx.get(url[0] + "/health", timeout=60).raise_for_status()
        (uploads,) = temporary.iterdir()
        try:
            yield LiveServer(url[0], process, log, uploads)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=30)
            process.stdout.close()
    assert "Traceback" not in log.read_text(), log.read_text()
    assert not list(temporary.iterdir()), "uploads are left behind"
    written = [path for path in home.rglob("*") if path.is_file()]
    assert all(path.parent.name == "matplotlib" for path in written), written


@pytest.fixture(scope="session")
def server(tmp_path_factory) -> Iterator[LiveServer]:
    with live_server(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="session")
def predictor() -> Predictor:
    return Predictor(open_network(REPOSITORY / SHIPPED_MODEL))


@pytest.fixture(scope="session")
def drawings(tmp_path_factory) -> dict[str, Path]:
    """Name to file, for example orange."""
    paths = write_drawings(tmp_path_factory.mktemp("drawings"))
    return {path.stem.removeprefix("drawn_"): path for path in paths}
