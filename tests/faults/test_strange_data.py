"""Data from strangers: archives, pickles and flipped bits, refused before they can do anything."""

import dataclasses
import io
import itertools
import pickle
import random
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from resnet_cifar100.constants import FOLDER
from resnet_cifar100.data import cifar100
from resnet_cifar100.data.cifar100 import SYNTHETIC_FOLDER, load_dataset, read_dataset
from resnet_cifar100.data.download import ARCHIVE_NAME
from resnet_cifar100.errors import DataError
from tests.data.download.client import files_in, refusal
from tests.data.download.server import GOOD, entry, facts_of, pack
from tests.data.download.test_archives import (
    BAD_ENTRY,
    BROKEN,
    EVIL,
    HARMLESS,
    WRONG_CONTENT,
    listing,
    try_hostile,
)
from tests.faults.hostile import Runs, evaluated, nested, shell

pytest.importorskip("resource", reason="needs a POSIX system")
from tests.faults.child import in_child, in_words

MOST_MEGABYTES = 200
NOWHERE = "http://unused.invalid/"


def archives(tmp_path: Path) -> dict[str, bytes]:
    """Return archives of every kind that would write where it should not, or without end."""
    entries = {**HARMLESS, **BAD_ENTRY, **WRONG_CONTENT}
    packed = {name: pack(parts) for name, parts in entries.items()}
    packed["absolute path"] = pack([entry(str(tmp_path / "evil"), EVIL), *GOOD])
    return packed | BROKEN


def test_no_archive_but_the_official_one_is_opened(tmp_path, figure):
    data_dir = tmp_path / "some" / "data"
    data_dir.mkdir(parents=True)
    files = archives(tmp_path)
    for content in files.values():
        (data_dir / ARCHIVE_NAME).write_bytes(content)
        before = listing(tmp_path, but=data_dir)
        assert "is not the official archive" in refusal(data_dir, NOWHERE)
        assert files_in(data_dir) == [data_dir / ARCHIVE_NAME]
        assert listing(tmp_path, but=data_dir) == before
    count = len(files)
    figure("hostile archives", f"{count} of {count} refused, 0 bytes written")


def renamed(name: str, how: int) -> bytes:
    """Return an archive with a name that stands in a header of its own."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz", format=how) as tar:
        for info, content in [entry(name, EVIL), *GOOD]:
            tar.addfile(info, io.BytesIO(content))
    return raw.getvalue()


@pytest.mark.parametrize("how", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT], ids=["pax", "gnu"])
@pytest.mark.parametrize("name", ["../" * 60 + "evil\u00e9", f"{FOLDER}/" + "../" * 60 + "evil"])
def test_a_name_in_a_header_of_its_own_is_never_written_to(name, how, tmp_path):
    assert try_hostile(tmp_path, tmp_path / "some" / "data", renamed(name, how)) is None


def stream(*parts: bytes) -> bytes:
    return b"\x80\x02" + b"".join(parts) + b"."


def data_pickles(canary: Path) -> dict[str, bytes]:
    """Return data files that run code, or that take all memory, where they are unpickled freely."""
    objects = {
        "os.system": shell(canary),
        "eval": evaluated(canary),
        "_load_from_bytes": nested(canary),
        "an array of objects": np.array([shell(canary)], dtype=object),
        "an attribute of an admitted name": Runs(getattr, np.ndarray, "__class__"),
        "an array of a terabyte": Runs(np.ndarray, (1 << 40,)),
        "torch's own": Runs(torch.load, io.BytesIO()),
    }
    files = {name: pickle.dumps({b"data": value}, 4) for name, value in objects.items()}
    row = np.zeros((1, 3072), np.uint8)
    wide = {b"data": row.repeat(2, 0), b"fine_labels": [1 << 70] * 2, b"coarse_labels": [0, 0]}
    return files | {
        "protocol 0": pickle.dumps({"data": shell(canary)}, 0),
        "bytes of a terabyte": stream(b"\x8e", (1 << 40).to_bytes(8, "little")),
        "a number of half a gigabyte": stream(b"Nr", (30_000_000).to_bytes(4, "little"), b"0"),
        "a bytearray of a gigabyte": stream(b"\x96", (1 << 30).to_bytes(8, "little")),
        "a nest": stream(b"(" * 100_000, b"t" * 100_000),
        "labels of 70 bits": pickle.dumps(wide, 4),
        "nothing": b"",
    }


def test_no_pickle_of_a_stranger_harms_who_reads_it(tiny_data_dir, tmp_path, full, figure):
    canary, folder = tmp_path / "canary", tmp_path / "data"
    shutil.copytree(tiny_data_dir / SYNTHETIC_FOLDER, folder)
    names, files = ("train", "test", "meta") if full else ("train",), data_pickles(canary)
    outcomes = []
    for name, (case, content) in itertools.product(names, files.items()):
        sound = (folder / name).read_bytes()
        (folder / name).write_bytes(content)
        outcomes.append(in_child(lambda: read_dataset(folder, title="SYNTHETIC")))
        assert outcomes[-1].fault == "DataError", f"{case}: {outcomes[-1]}"
        assert str(folder / name) in outcomes[-1].message
        assert outcomes[-1].megabytes < MOST_MEGABYTES, case
        assert not canary.exists(), case
        (folder / name).write_bytes(sound)
    figure("hostile pickles as data files", in_words(outcomes))


@pytest.fixture
def verified(tiny_data_dir, tmp_path, monkeypatch) -> Path:
    """A data set whose checksums are known, as those of the official files are."""
    monkeypatch.delenv("CIFAR100_DIR", raising=False)
    folder = Path(shutil.copytree(tiny_data_dir / SYNTHETIC_FOLDER, tmp_path / "data" / FOLDER))
    facts = {path.name: facts_of(path.read_bytes()) for path in folder.iterdir()}
    monkeypatch.setattr(cifar100, "MEMBERS", facts)
    return folder


def spoil_bit(content: bytes, noise: random.Random) -> bytes:
    place, mask = noise.randrange(len(content)), 1 << noise.randrange(8)
    return content[:place] + bytes([content[place] ^ mask]) + content[place + 1 :]


def cut(content: bytes, noise: random.Random) -> bytes:
    return content[: noise.randrange(len(content))]


@pytest.mark.parametrize("spoil", [spoil_bit, cut], ids=["flipped bits", "cuts"])
def test_no_damage_of_the_data_is_believed(
    spoil: Callable[..., bytes], verified, tiny_config, full, figure, request
):
    config = dataclasses.replace(tiny_config, dataset="cifar100", data_dir=verified.parent)
    assert len(load_dataset(config).train.labels) == 400
    noise, count = random.Random(0), 200 if full else 20
    for number in range(count):
        path = verified / ("train", "test", "meta")[number % 3]
        sound = path.read_bytes()
        path.write_bytes(spoil(sound, noise))
        with pytest.raises(DataError, match=f"no correct copy of {path.name} "):
            load_dataset(config)
        path.write_bytes(sound)
    figure(f"{request.node.callspec.id} in the data files", f"{count} of {count} refused")
