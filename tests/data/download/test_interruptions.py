"""Kills and full disks: no file under its final name but a whole one."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from filelock import FileLock

from resnet_cifar100.constants import FOLDER
from resnet_cifar100.data import download
from resnet_cifar100.data.download import (
    ARCHIVE_NAME,
)
from resnet_cifar100.errors import DataError
from tests.data.download.client import assert_complete, files_in, obtain, refusal, resumed_at
from tests.data.download.server import DATA, FACTS, MEMBERS, Server, hang_half_way

CHILD = """
import json, pathlib, sys, time
from resnet_cifar100.constants import FileFacts
from resnet_cifar100.data import download
data_dir, url, archive, members, stuck_in = json.loads(sys.argv[1])
def stick(*args):
    pathlib.Path(data_dir, "stuck").touch()
    time.sleep(60)
if stuck_in:
    setattr(download.os, stuck_in, stick)
members = {name: FileFacts(*facts) for name, facts in members.items()}
archive = FileFacts(*archive)
download.download_cifar100(pathlib.Path(data_dir), url, archive=archive, members=members)
"""


def kill_when(has_begun: Callable[[], bool], data_dir: Path, url: str, stuck_in: str = "") -> None:
    """Start a download in another process and kill it as soon as `has_begun`."""
    order = json.dumps([str(data_dir), url, FACTS, MEMBERS, stuck_in])
    root = Path(download.__file__).parents[2]
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, order], cwd=root, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 15
    while not has_begun() and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    child.kill()
    assert child.wait() == -signal.SIGKILL


def test_a_kill_while_bytes_arrive_leaves_no_final_file_and_a_rerun_resumes(
    server: Server, data_dir: Path
) -> None:
    part = data_dir / f"{ARCHIVE_NAME}.part"
    server.script = [hang_half_way]
    kill_when(lambda: part.exists() and part.stat().st_size > 0, data_dir, server.url)
    assert files_in(data_dir) == [part]
    offset = part.stat().st_size
    assert 0 < offset < len(DATA)
    obtain(data_dir, server.url)
    assert server.exchanges[-1].range_header == resumed_at(offset)
    assert_complete(data_dir)


@pytest.mark.parametrize("stuck_in", ["fsync", "replace"])
def test_a_kill_while_unpacking_leaves_no_final_file_and_a_rerun_needs_no_network(
    server: Server, data_dir: Path, stuck_in: str
) -> None:
    kill_when((data_dir / "stuck").exists, data_dir, server.url, stuck_in)
    (data_dir / "stuck").unlink()
    assert list((data_dir / FOLDER).iterdir()) == [data_dir / FOLDER / "train.part"]
    server.exchanges.clear()
    obtain(data_dir, server.url)
    assert server.exchanges == []
    assert_complete(data_dir)


@pytest.mark.parametrize("room", [0, 100_000, 650_000])
def test_a_full_disk_ends_in_one_message_and_a_rerun_finishes(
    server: Server, data_dir: Path, room: int
) -> None:
    resource = pytest.importorskip("resource", reason="needs a POSIX system")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        message = refusal(data_dir, server.url)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert "File too large" in message
    assert not list(data_dir.glob(f"{FOLDER}/*"))
    obtain(data_dir, server.url)
    assert_complete(data_dir)


@pytest.mark.parametrize("taken", ["some", "some/data", f"some/data/{FOLDER}"])
def test_a_file_where_a_folder_should_be_ends_in_one_message(
    server: Server, data_dir: Path, tmp_path: Path, taken: str
) -> None:
    (tmp_path / taken).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / taken).write_bytes(b"mine")
    with pytest.raises(DataError, match="Reading or writing failed"):
        obtain(data_dir, server.url)
    assert (tmp_path / taken).read_bytes() == b"mine"


def test_of_several_that_want_it_at_once_one_fetches_it(server: Server, data_dir: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        folders = list(pool.map(lambda _: obtain(data_dir, server.url), range(4)))
    assert {*folders} == {data_dir / FOLDER}
    assert len(server.exchanges) == 1
    assert_complete(data_dir)


def test_who_waits_for_another_process_says_so(
    server: Server, data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data_dir.mkdir(parents=True)
    said = ""
    with ThreadPoolExecutor(1) as pool:
        with FileLock(data_dir / f".{FOLDER}.lock"):
            folder = pool.submit(obtain, data_dir, server.url)
            while f"Another process fetches the data set into {data_dir}" not in said:
                assert not folder.done()
                time.sleep(0.02)
                said += capsys.readouterr().err
        folder.result(timeout=20)
    assert_complete(data_dir)
