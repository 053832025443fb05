import contextlib
import functools
import hashlib
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from resnet_cifar100.config import Config
from resnet_cifar100.constants import FINE_TO_COARSE, FOLDER, MEMBERS, FileFacts
from resnet_cifar100.data import cifar100, synthetic
from resnet_cifar100.data.cifar100 import (
    SYNTHETIC_FOLDER,
    find_cifar100,
    hold_out,
    load_dataset,
    read_dataset,
    training_splits,
)
from resnet_cifar100.errors import DataError
from tests.names import COARSE_NAMES, FINE_NAMES

NOWHERE = "http://127.0.0.1:9/cifar-100-python.tar.gz"  # the discard port: refused at once


@pytest.fixture(autouse=True)
def _no_other_data_folder(monkeypatch):
    monkeypatch.delenv("CIFAR100_DIR", raising=False)


@pytest.fixture
def folder(tiny_data_dir, tmp_path) -> Path:
    """A copy of the small drawn data set that a test may damage."""
    return Path(shutil.copytree(tiny_data_dir / SYNTHETIC_FOLDER, tmp_path / "copy"))


def test_the_official_format_is_read(folder):
    data = read_dataset(folder, title="SYNTHETIC")
    raw = pickle.loads((folder / "train").read_bytes())
    assert data.train.images.shape == (400, 3, 32, 32)
    assert data.train.images.dtype == torch.uint8
    assert data.train.labels.tolist() == raw[b"fine_labels"]
    assert np.array_equal(data.train.images[7].flatten().numpy(), raw[b"data"][7])
    assert [data.fine_to_coarse[f] for f in raw[b"fine_labels"]] == raw[b"coarse_labels"]


def test_python_2_pickles_of_old_numpy_are_read(folder):
    content = pickle.loads((folder / "test").read_bytes())
    content[b"data"] = np.asarray(content[b"data"])
    old = pickle.dumps(content, protocol=4).replace(
        b"numpy._core.multiarray", b"numpy.core.multiarray"
    )
    # A protocol 4 string carries its length; the shorter name is one byte less.
    old = old.replace(b"\x8c\x16numpy.core.multiarray", b"\x8c\x15numpy.core.multiarray")
    old = (
        old[:2] + old[11:] if old[2:3] == b"\x95" else old
    )  # without the frame, whose length is off
    (folder / "test").write_bytes(old)
    assert len(read_dataset(folder, title="SYNTHETIC").test.labels) == 200


@pytest.mark.parametrize(
    "meta",
    [
        {b"fine_label_names": 7, b"coarse_label_names": []},
        {b"fine_label_names": [], b"coarse_label_names": []},
        {b"fine_label_names": [b"a"] * 100, b"coarse_label_names": [b"b"] * 3},
        {b"fine_label_names": ["a"] * 100, b"coarse_label_names": ["b"] * 20},
        [],
    ],
)
def test_a_file_of_names_without_them_is_refused(meta, folder):
    (folder / "meta").write_bytes(pickle.dumps(meta))
    with pytest.raises(DataError, match=r"does not hold class names|not a CIFAR-100 file"):
        read_dataset(folder, title="SYNTHETIC")


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_damaged_file_is_refused_or_read_but_never_crashes(tiny_data_dir, tmp_path_factory, data):
    original = tiny_data_dir / SYNTHETIC_FOLDER
    folder = tmp_path_factory.mktemp("damaged")
    shutil.copytree(original, folder, dirs_exist_ok=True)
    name = data.draw(st.sampled_from(["train", "test", "meta"]))
    content = bytearray((original / name).read_bytes())
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        for _ in range(3):
            content[data.draw(st.integers(0, min(len(content) - 1, 3000)))] ^= 1 << data.draw(
                st.integers(0, 7)
            )
    (folder / name).write_bytes(bytes(content))
    with contextlib.suppress(DataError):
        read_dataset(folder, title="SYNTHETIC")
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    "damage",
    [
        {b"data": np.zeros((10, 3072), np.float32)},
        {b"data": np.zeros((10, 3071), np.uint8)},
        {b"fine_labels": [0, 1]},
        {b"fine_labels": [100] * 10},
        {b"fine_labels": [-1] * 10},
        {b"coarse_labels": ["x"] * 10},
        {b"coarse_labels": []},
    ],
    ids=str,
)
def test_content_that_does_not_fit_together_is_refused(damage, folder):
    sound = {
        b"data": np.zeros((10, 3072), np.uint8),
        b"fine_labels": [0] * 10,
        b"coarse_labels": [0] * 10,
    }
    (folder / "train").write_bytes(pickle.dumps(sound | damage, protocol=4))
    with pytest.raises(DataError):
        read_dataset(folder, title="SYNTHETIC")


@pytest.mark.parametrize("size", [100, 200])
def test_the_hold_out_is_balanced_disjoint_and_always_the_same(size):
    labels = torch.arange(100).repeat(5)[torch.randperm(500)]
    kept, held = hold_out(labels, size)
    assert torch.bincount(labels[held], minlength=100).tolist() == [size // 100] * 100
    assert sorted([*kept.tolist(), *held.tolist()]) == list(range(500))
    torch.manual_seed(5)
    assert torch.equal(hold_out(labels, size)[1], held)


def test_training_and_validation_images_never_meet(tiny_config, tiny_dataset):
    import dataclasses

    config = dataclasses.replace(tiny_config, val_size=100, train_size=200)
    train, val = training_splits(tiny_dataset, config)
    assert len(train.labels) == 200
    assert len(val.labels) == 100
    seen = {image.numpy().tobytes() for image in train.images}
    assert not any(image.numpy().tobytes() in seen for image in val.images)


def test_data_that_cannot_be_had_is_a_message_that_helps(tmp_path, monkeypatch):
    monkeypatch.setattr("resnet_cifar100.data.download.BACKOFF_S", (0.0,))
    config = Config(dataset="cifar100", data_dir=tmp_path, data_url=NOWHERE)
    with pytest.raises(DataError) as refused:
        load_dataset(config)
    for part in (NOWHERE, str(tmp_path), "--data-url", "--dataset synthetic"):
        assert part in str(refused.value)
    assert not any(tmp_path.rglob("train"))


@pytest.fixture
def few_pictures(monkeypatch):
    """Let one picture a class be drawn, where it would be 600."""
    few = functools.partial(synthetic.write_synthetic, train_per_class=1, test_per_class=1)
    monkeypatch.setattr(cifar100, "write_synthetic", few)


@pytest.mark.usefixtures("few_pictures")
def test_two_processes_may_draw_at_once(tmp_path, monkeypatch):
    config = Config(dataset="synthetic", data_dir=tmp_path)
    name_classes = synthetic._meta

    def be_overtaken():
        monkeypatch.setattr(synthetic, "_meta", name_classes)
        load_dataset(config)  # as another process, which is done before this one
        return name_classes()

    monkeypatch.setattr(synthetic, "_meta", be_overtaken)
    assert len(load_dataset(config).train.labels) == 100
    assert [folder.name for folder in tmp_path.iterdir()] == [SYNTHETIC_FOLDER]


@pytest.mark.usefixtures("few_pictures")
def test_auto_falls_back_to_drawn_pictures_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("resnet_cifar100.data.download.BACKOFF_S", (0.0,))
    data = load_dataset(Config(dataset="auto", data_dir=tmp_path, data_url=NOWHERE))
    assert data.title == "SYNTHETIC"
    assert "SYNTHETIC" in data.notice
    assert len(data.train.labels) == 100


def test_wrong_files_are_refused_even_where_auto_could_draw(folder, tmp_path):
    (tmp_path / "data").mkdir()
    folder.rename(tmp_path / "data" / FOLDER)
    with pytest.raises(DataError, match="checksums"):
        load_dataset(Config(dataset="auto", data_dir=tmp_path / "data"))


@pytest.fixture
def official_folder(folder, monkeypatch):
    """Let the small files of `folder` be the official ones."""
    facts = {}
    for name in MEMBERS:
        content = (folder / name).read_bytes()
        facts[name] = FileFacts(len(content), hashlib.sha256(content).hexdigest())
    monkeypatch.setattr(cifar100, "MEMBERS", facts)
    return folder


def test_what_an_unpacking_left_is_for_the_download_to_finish(official_folder):
    assert find_cifar100(official_folder) == official_folder
    for name in list(MEMBERS)[:-1]:
        (official_folder / name).unlink()
        assert find_cifar100(official_folder) is None
    (official_folder / list(MEMBERS)[-1]).write_bytes(b"something else")
    with pytest.raises(DataError, match="checksums"):
        find_cifar100(official_folder)


def test_the_environment_names_a_second_place(official_folder, tmp_path, monkeypatch):
    folder = official_folder
    assert find_cifar100(tmp_path / "empty") is None
    monkeypatch.setenv("CIFAR100_DIR", str(folder))
    assert find_cifar100(tmp_path / "empty") == folder
    folder.rename(tmp_path / FOLDER)
    monkeypatch.setenv("CIFAR100_DIR", str(tmp_path))
    assert find_cifar100(tmp_path / "empty") == tmp_path / FOLDER


def test_the_official_files_are_what_the_constants_say(real_dataset):
    data = real_dataset
    assert data.title == "CIFAR-100"
    assert data.fine_names == FINE_NAMES
    assert data.coarse_names == COARSE_NAMES
    assert data.fine_to_coarse == FINE_TO_COARSE
    assert torch.bincount(data.train.labels).tolist() == [500] * 100
    assert torch.bincount(data.test.labels).tolist() == [100] * 100
    kept, held = hold_out(data.train.labels, 5000)
    assert torch.bincount(data.train.labels[held]).tolist() == [50] * 100
    assert len(kept) == 45_000
