"""What a test does with the downloader, and what has to be true afterwards."""

from pathlib import Path

import pytest

from resnet_cifar100.constants import FOLDER, FileFacts
from resnet_cifar100.data.download import (
    ARCHIVE_NAME,
    download_cifar100,
    how_to_get_it,
    verify_file,
)
from resnet_cifar100.errors import DataError
from tests.data.download.server import CONTENTS, FACTS, MEMBERS


def obtain(data_dir: Path, url: str, archive: FileFacts = FACTS) -> Path:
    return download_cifar100(data_dir, url, archive=archive, members=MEMBERS)


def refusal(data_dir: Path, url: str, archive: FileFacts = FACTS) -> str:
    """The message of the DataError, which has to end with the advice; no wrong file may stand."""
    with pytest.raises(DataError) as caught:
        obtain(data_dir, url, archive)
    assert str(caught.value).endswith("\n" + how_to_get_it(data_dir, url))
    assert all(verify_file(path, MEMBERS[path.name]) for path in data_dir.glob(f"{FOLDER}/*"))
    return str(caught.value)


def files_in(data_dir: Path) -> list[Path]:
    """What is there but for the lock."""
    return [path for path in data_dir.iterdir() if path.suffix != ".lock"]


def assert_complete(data_dir: Path) -> None:
    """Exactly the three right files are there, nothing half-done and no archive."""
    assert files_in(data_dir) == [data_dir / FOLDER]
    assert {path.name: path.read_bytes() for path in (data_dir / FOLDER).iterdir()} == CONTENTS


def write_part(data_dir: Path, content: bytes) -> Path:
    data_dir.mkdir(parents=True, exist_ok=True)
    part = data_dir / f"{ARCHIVE_NAME}.part"
    part.write_bytes(content)
    return part


def resumed_at(offset: int) -> str:
    return f"bytes={offset}-"
