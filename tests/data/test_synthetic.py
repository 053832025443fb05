import io
import os
import pickle
import pickletools
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from resnet_cifar100.constants import FINE_TO_COARSE, IMAGE_SIZE, NUM_CLASSES
from resnet_cifar100.data.synthetic import SHAPES, write_synthetic

TRAIN_PER_CLASS = 6
TEST_PER_CLASS = 2
FILES = ("meta", "test", "train")


class ArrayUnpickler(pickle.Unpickler):
    """Admits what a plain numpy array needs and nothing else."""

    ADMITTED = frozenset({("multiarray", "_reconstruct"), ("numpy", "ndarray"), ("numpy", "dtype")})

    def find_class(self, module: str, name: str) -> Any:
        if (module.removeprefix("numpy._core."), name) not in self.ADMITTED:
            raise pickle.UnpicklingError(f"{module}.{name} is not admitted")
        return super().find_class(module, name)


def write(folder: Path, seed: int = 0) -> Path:
    write_synthetic(
        folder, seed=seed, train_per_class=TRAIN_PER_CLASS, test_per_class=TEST_PER_CLASS
    )
    return folder


def read(path: Path) -> dict[bytes, Any]:
    content: dict[bytes, Any] = ArrayUnpickler(io.BytesIO(path.read_bytes())).load()
    return content


def file_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def images_of(folder: Path, split: str) -> np.ndarray:
    data: np.ndarray = read(folder / split)[b"data"]
    return data.reshape(-1, 3, IMAGE_SIZE, IMAGE_SIZE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("synthetic") / "cifar-100-python")


def test_the_folder_holds_the_three_official_files_and_nothing_lies_beside_it(folder: Path) -> None:
    assert tuple(file_bytes(folder)) == FILES
    assert list(folder.parent.iterdir()) == [folder]


@pytest.mark.parametrize(
    ("split", "per_class"), [("train", TRAIN_PER_CLASS), ("test", TEST_PER_CLASS)]
)
def test_a_split_has_the_official_fields_and_types(
    folder: Path, split: str, per_class: int
) -> None:
    content = read(folder / split)
    size = NUM_CLASSES * per_class
    assert list(content) == [
        b"filenames", b"batch_label", b"fine_labels", b"coarse_labels", b"data",
    ]  # fmt: skip
    assert len(set(content[b"filenames"])) == size
    assert all(type(name) is bytes for name in content[b"filenames"])
    assert content[b"batch_label"].startswith(b"SYNTHETIC")
    for key in (b"fine_labels", b"coarse_labels"):
        assert type(content[key]) is list
        assert {type(label) for label in content[key]} == {int}
    data = content[b"data"]
    assert (type(data), data.dtype, data.shape) == (np.ndarray, np.uint8, (size, 3072))
    assert data.flags.c_contiguous


def test_the_only_globals_in_the_files_are_those_of_a_numpy_array(folder: Path) -> None:
    for name in FILES:
        opcodes = {opcode.name for opcode, _, _ in pickletools.genops((folder / name).read_bytes())}
        assert not opcodes & {"GLOBAL", "INST", "OBJ", "EXT1", "EXT2", "EXT4", "NEXT_BUFFER"}
        assert read(folder / name)  # STACK_GLOBAL passes the allow-list


@pytest.mark.parametrize(
    ("split", "per_class"), [("train", TRAIN_PER_CLASS), ("test", TEST_PER_CLASS)]
)
def test_classes_are_balanced_nested_as_in_the_real_set_and_shuffled(
    folder: Path, split: str, per_class: int
) -> None:
    content = read(folder / split)
    fine_labels, coarse_labels = content[b"fine_labels"], content[b"coarse_labels"]
    assert Counter(fine_labels) == dict.fromkeys(range(NUM_CLASSES), per_class)
    assert coarse_labels == [FINE_TO_COARSE[fine] for fine in fine_labels]
    assert fine_labels != sorted(fine_labels)


def test_names_are_unique_and_each_superclass_has_five_classes_named_after_it(folder: Path) -> None:
    meta = read(folder / "meta")
    fine_names, coarse_names = meta[b"fine_label_names"], meta[b"coarse_label_names"]
    assert (len(set(fine_names)), len(set(coarse_names))) == (100, 20)
    shapes = [name.split(b"_")[0] for name in fine_names]
    assert shapes == [coarse_names[coarse] for coarse in FINE_TO_COARSE]
    assert set(Counter(shapes).values()) == {5}


def test_a_seed_fixes_every_byte(folder: Path, tmp_path: Path) -> None:
    assert file_bytes(write(tmp_path / "again")) == file_bytes(folder)


def test_another_seed_draws_other_pictures_under_the_same_names(
    folder: Path, tmp_path: Path
) -> None:
    other = file_bytes(write(tmp_path / "other", seed=1))
    same = file_bytes(folder)
    assert [name for name in FILES if other[name] == same[name]] == ["meta"]


def test_no_picture_occurs_twice_within_or_across_the_splits(folder: Path) -> None:
    data = np.concatenate([read(folder / split)[b"data"] for split in ("train", "test")])
    assert len(np.unique(data, axis=0)) == len(data)


def test_pictures_use_the_range_and_are_not_grey(folder: Path) -> None:
    images = images_of(folder, "train").astype(np.float32)
    assert np.all(images.max(axis=(1, 2, 3)) - images.min(axis=(1, 2, 3)) > 64)
    chroma = images.mean(axis=(2, 3)).std(axis=1)  # (S,C) -> (S,)
    assert np.median(chroma) > 4


def silhouettes() -> tuple[np.ndarray, np.ndarray]:
    """Return what lies inside each shape, (20,H,W), and how far from the centre, (H,W)."""
    side = np.linspace(-1.2, 1.2, 241, dtype=np.float32)
    x, y = np.meshgrid(side, side)
    return np.stack([shape(x, y) < 0 for shape in SHAPES.values()]), np.hypot(x, y)


def test_every_silhouette_fits_the_unit_circle_and_nearly_fills_it() -> None:
    inside, radius = silhouettes()
    reach = np.array([radius[mask].max() for mask in inside])
    assert np.all((reach > 0.85) & (reach < 1.02))  # 0.02: two grid steps


def test_no_silhouette_is_another_one_or_its_mirror_image() -> None:
    inside, _ = silhouettes()
    for others in (inside, inside[:, :, ::-1]):
        overlap = np.einsum("ahw,bhw->ab", inside, others, dtype=np.float32, casting="unsafe")
        area = inside.sum(axis=(1, 2))
        shared = overlap / (area[:, None] + area - overlap)  # intersection over union
        np.fill_diagonal(shared, 0)
        assert shared.max() < 0.85


def test_rows_hold_the_channels_one_after_the_other(folder: Path) -> None:
    """Neighbours resemble each other only where the bytes are cut into R, G and B planes."""
    images = images_of(folder, "train").astype(np.float32)
    interleaved = images.reshape(-1, IMAGE_SIZE, IMAGE_SIZE, 3).transpose(0, 3, 1, 2)

    def roughness(planes: np.ndarray) -> float:
        return float(np.abs(np.diff(planes, axis=2)).mean())

    assert roughness(images) < 0.8 * roughness(interleaved)


def refuse(*_: object) -> None:
    raise OSError("no space left on device")


@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_a_write_that_fails_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(OSError, match="no space"):
        write(tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


def test_the_folder_appears_only_when_its_files_are_whole(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "new"
    replace: Callable[..., None] = os.replace

    def replace_and_look(source: Path, destination: Path) -> None:
        assert not target.exists()
        assert file_bytes(source) == file_bytes(folder)
        replace(source, destination)

    monkeypatch.setattr(os, "replace", replace_and_look)
    write(target)
    assert target.exists()


def test_a_folder_that_exists_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "train").write_bytes(b"somebody's own")
    with pytest.raises(OSError, match="not empty"):
        write(tmp_path)
    assert file_bytes(tmp_path) == {"train": b"somebody's own"}


def test_a_linear_model_on_pixels_stays_under_thirty_percent(tmp_path: Path) -> None:
    """Ridge regression on 10,000 pictures, solved exactly, so that no optimizer is to blame."""
    write_synthetic(tmp_path / "data", train_per_class=100, test_per_class=20)
    pixels, labels = {}, {}
    for split in ("train", "test"):
        content = read(tmp_path / "data" / split)
        pixels[split] = content[b"data"].astype(np.float32) / 127.5 - 1
        labels[split] = np.array(content[b"fine_labels"])
    targets = np.eye(NUM_CLASSES, dtype=np.float32)[labels["train"]] - 1 / NUM_CLASSES
    gram = pixels["train"].T @ pixels["train"]
    gram[np.diag_indices_from(gram)] += 100.0
    weights = np.linalg.solve(gram, pixels["train"].T @ targets)
    top1 = ((pixels["test"] @ weights).argmax(1) == labels["test"]).mean()
    assert top1 < 0.30
