"""The server, a folder to download into, and no waiting."""

from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

from resnet_cifar100.data import download
from tests.data.download.server import Server


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.is_closing.set()
        server.shutdown()


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "BACKOFF_S", (0.0, 0.0, 0.0))
    monkeypatch.setattr(download, "CHUNK", 4096)
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "some" / "data"
