"""Hostile archives: nothing is written but the three files."""

import gzip
import tarfile
from pathlib import Path

import pytest

from resnet_cifar100.constants import FOLDER
from resnet_cifar100.errors import DataError
from tests.data.download.client import assert_complete, obtain, write_part
from tests.data.download.server import (
    CONTENTS,
    DATA,
    GOOD,
    Entry,
    _noise,
    entry,
    facts_of,
    pack,
    spoiled,
)

TRAIN, TEST, META = GOOD
TRAIN_NAME = f"{FOLDER}/train"
EVIL = b"evil" * 100


# In each of these the three right files come out, and whatever else is there stays inside.
HARMLESS = {
    "parent directory": [entry("../evil", EVIL), *GOOD],
    "parent below the folder": [entry(f"{FOLDER}/../../evil", EVIL), *GOOD],
    "name without the folder": [entry("train", EVIL), *GOOD],
    "dotted name": [entry(f"./{TRAIN_NAME}", EVIL), *GOOD],
    "link in place of the folder": [entry(FOLDER, type=tarfile.SYMTYPE, linkname=".."), *GOOD],
    "link, then a file through it": [
        entry(f"{FOLDER}/out", type=tarfile.SYMTYPE, linkname="../.."),
        entry(f"{FOLDER}/out/evil", EVIL),
        *GOOD,
    ],
    "link in place of the part": [
        entry(f"{TRAIN_NAME}.part", type=tarfile.SYMTYPE, linkname="../../evil"),
        *GOOD,
    ],
    "second train": [*GOOD, entry(TRAIN_NAME, EVIL)],
    "second train as a link": [*GOOD, entry(TRAIN_NAME, type=tarfile.SYMTYPE, linkname="meta")],
    "extra files": [entry(f"{FOLDER}/file.txt~", EVIL), entry("n" * 300, EVIL), *GOOD],
    "other device": [entry("dev", type=tarfile.CHRTYPE, devmajor=1, devminor=3), *GOOD],
}
BAD_ENTRY = {
    "symbolic link": [entry(TRAIN_NAME, type=tarfile.SYMTYPE, linkname="/etc/passwd"), TEST, META],
    "hard link": [entry(TRAIN_NAME, type=tarfile.LNKTYPE, linkname=f"{FOLDER}/test"), TEST, META],
    "device": [entry(TRAIN_NAME, type=tarfile.CHRTYPE, devmajor=1, devminor=5), TEST, META],
    "device of the right size": [entry(TRAIN_NAME, type=tarfile.CHRTYPE, size=600_000), TEST, META],
    "pipe": [entry(TRAIN_NAME, type=tarfile.FIFOTYPE), TEST, META],
    "directory": [entry(TRAIN_NAME, type=tarfile.DIRTYPE), TEST, META],
    "sparse": [entry(TRAIN_NAME, CONTENTS["train"], type=tarfile.GNUTYPE_SPARSE), TEST, META],
    "sparse something": [entry("holes", EVIL, type=tarfile.GNUTYPE_SPARSE), *GOOD],
    "larger than declared": [TRAIN, entry(f"{FOLDER}/test", CONTENTS["test"] + b"x"), META],
    "smaller than declared": [entry(TRAIN_NAME, CONTENTS["train"][:-1]), TEST, META],
    "a terabyte of train": [TEST, META, entry(TRAIN_NAME, size=1 << 40)],
    "a terabyte of something": [entry("big", size=1 << 40), *GOOD],
    "negative size of train": [entry(TRAIN_NAME, size=-512), TEST, META],
}
WRONG_CONTENT = {
    "wrong train before the right one": [
        entry(TRAIN_NAME, spoiled(CONTENTS["train"])),
        *GOOD,
    ],
    "right size, but cut": [TEST, META, entry(TRAIN_NAME, size=len(CONTENTS["train"]))],
    "negative size": [entry("back", size=-512), *GOOD],
    "a terabyte of name": [entry("n", size=1 << 40, type=tarfile.GNUTYPE_LONGNAME), *GOOD],
    "missing": [TRAIN, META],
    "empty": [],
}
BROKEN = {
    "no gzip": _noise.randbytes(5000),
    "no tar": gzip.compress(_noise.randbytes(5000)),
    "a web page": b"<html>" + bytes(3000),
    "cut gzip": DATA[: len(DATA) // 2],
    "gzip cut in its header": DATA[:5],
    "flipped gzip": DATA[:400_000] + bytes(100) + DATA[400_100:],
}


def listing(root: Path, *, but: Path) -> dict[str, object]:
    """Everything under `root` except what is under `but`, with contents and link targets."""
    return {
        str(path): path.readlink() if path.is_symlink() else path.is_file() and path.read_bytes()
        for path in root.rglob("*")
        if but not in path.parents
    }


def try_hostile(tmp_path: Path, data_dir: Path, data: bytes) -> Exception | None:
    """Unpack `data`, whose checksum is right, and watch everything outside `data_dir`."""
    write_part(data_dir, data)
    (data_dir.parent / "canary").write_bytes(b"alive")
    before = listing(tmp_path, but=data_dir)
    try:
        obtain(data_dir, "http://unused.invalid/", facts_of(data))
    except DataError as error:
        return error
    finally:
        assert listing(tmp_path, but=data_dir) == before
        for path in data_dir.glob(f"{FOLDER}/*"):
            assert path.is_file()
            assert not path.is_symlink()
            assert path.read_bytes() == CONTENTS[path.name]
    assert_complete(data_dir)
    return None


@pytest.mark.parametrize("entries", HARMLESS.values(), ids=HARMLESS.keys())
def test_entries_that_were_not_asked_for_are_never_written(
    tmp_path: Path, data_dir: Path, entries: list[Entry]
) -> None:
    assert try_hostile(tmp_path, data_dir, pack(entries)) is None


def test_an_absolute_path_is_never_written(tmp_path: Path, data_dir: Path) -> None:
    evil = tmp_path / "evil"
    assert try_hostile(tmp_path, data_dir, pack([entry(str(evil), EVIL), *GOOD])) is None
    assert not evil.exists()


@pytest.mark.parametrize("entries", BAD_ENTRY.values(), ids=BAD_ENTRY.keys())
def test_an_entry_of_wrong_kind_or_size_is_refused_before_it_is_read(
    tmp_path: Path, data_dir: Path, entries: list[Entry]
) -> None:
    assert "bad entry" in str(try_hostile(tmp_path, data_dir, pack(entries)))


@pytest.mark.parametrize("entries", WRONG_CONTENT.values(), ids=WRONG_CONTENT.keys())
def test_an_archive_without_the_right_contents_is_refused(
    tmp_path: Path, data_dir: Path, entries: list[Entry]
) -> None:
    assert try_hostile(tmp_path, data_dir, pack(entries)) is not None


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN.keys())
def test_an_archive_that_cannot_be_read_is_refused(
    tmp_path: Path, data_dir: Path, data: bytes
) -> None:
    assert try_hostile(tmp_path, data_dir, data) is not None
