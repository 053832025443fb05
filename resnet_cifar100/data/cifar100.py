"""CIFAR-100 from its official python files, or a drawn stand-in of the same format.

Learning Multiple Layers of Features from Tiny Images, Krizhevsky 2009, https://www.cs.toronto.edu/~kriz/cifar.html
"""

import io
import os
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from resnet_cifar100.config import Config
from resnet_cifar100.constants import CIFAR100, FOLDER, IMAGE_SIZE, MEMBERS, NUM_CLASSES, SYNTHETIC
from resnet_cifar100.data.download import download_cifar100, verify_file
from resnet_cifar100.data.loader import Split
from resnet_cifar100.data.synthetic import write_synthetic
from resnet_cifar100.errors import DataError

SYNTHETIC_FOLDER = "synthetic-100-python"
# Every run with the same --val-size holds out the same images: no seed has chosen on images
# that another was trained on.
SPLIT_SEED = 100


@dataclass(frozen=True)
class Dataset:
    """A train and a test split with their names. `title` goes on everything made from them."""

    title: str
    train: Split
    test: Split
    fine_names: tuple[str, ...]
    coarse_names: tuple[str, ...]
    fine_to_coarse: tuple[int, ...]
    notice: str = ""


def load_dataset(config: Config) -> Dataset:
    """Return the data set that the settings ask for, downloaded or drawn where need be.

    Raises:
        DataError: where it cannot be had, or its files are damaged.
    """
    if config.dataset == "synthetic":
        return _load_synthetic(config.data_dir, "SYNTHETIC data: drawn shapes, not CIFAR-100.")
    folder = find_cifar100(config.data_dir)
    if folder is None:
        try:
            folder = download_cifar100(config.data_dir, config.data_url)
        except DataError as error:
            if config.dataset == "cifar100":
                raise
            reason = str(error).splitlines()[0].rstrip(".")
            return _load_synthetic(
                config.data_dir,
                f"CIFAR-100 cannot be had ({reason}), so this run uses SYNTHETIC data, "
                "drawn shapes. None of its figures says anything about CIFAR-100.",
            )
    return read_dataset(folder, title=CIFAR100)


def find_cifar100(data_dir: Path) -> Path | None:
    """Return the folder of official files under `data_dir` or $CIFAR100_DIR; None without one.

    Raises:
        DataError: for files that are there but differ from the official ones.
    """
    places = [data_dir]
    if os.environ.get("CIFAR100_DIR"):
        places.append(Path(os.environ["CIFAR100_DIR"]))
    for folder in (candidate for place in places for candidate in (place / FOLDER, place)):
        there = [name for name in MEMBERS if (folder / name).is_file()]
        if bad := [name for name in there if not verify_file(folder / name, MEMBERS[name])]:
            raise DataError(
                f"{folder} has no correct copy of {', '.join(bad)} (checksums differ from the "
                "official files); delete or move it to download it again"
            )
        if len(there) == len(MEMBERS):  # else an unpacking broke off, and the download finishes it
            return folder
    return None


def _load_synthetic(data_dir: Path, notice: str) -> Dataset:
    folder = data_dir / SYNTHETIC_FOLDER
    try:
        if not folder.is_dir():
            write_synthetic(folder)
    except OSError as error:
        if not folder.is_dir():  # else another process has drawn the same pictures meanwhile
            raise DataError(
                f"the synthetic data cannot be written to {folder} ({error.strerror})"
            ) from error
    return read_dataset(folder, title=SYNTHETIC, notice=notice)


def read_dataset(folder: Path, *, title: str, notice: str = "") -> Dataset:
    """Read `train`, `test` and `meta` of a folder in the official format.

    Raises:
        DataError: for content that is not what the format says.
    """
    meta = _unpickle(folder / "meta")
    train, train_coarse = _read_split(folder / "train")
    test, _ = _read_split(folder / "test")
    coarse_of = torch.zeros(NUM_CLASSES, dtype=torch.int64)
    coarse_of[train.labels] = train_coarse
    try:
        fine_names = tuple(name.decode("ascii") for name in meta[b"fine_label_names"])
        coarse_names = tuple(name.decode("ascii") for name in meta[b"coarse_label_names"])
        if len(fine_names) != NUM_CLASSES or len(coarse_names) <= max(coarse_of.tolist()):
            raise ValueError("too few names")
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DataError(f"{folder / 'meta'} does not hold class names") from error
    return Dataset(title, train, test, fine_names, coarse_names, tuple(coarse_of.tolist()), notice)


def _read_split(path: Path) -> tuple[Split, Tensor]:
    """Return the split of one file, and its coarse labels int64 (S,)."""
    content = _unpickle(path)
    try:
        rows = np.ascontiguousarray(content[b"data"])
        labels = torch.tensor(content[b"fine_labels"], dtype=torch.int64)
        coarse = torch.tensor(content[b"coarse_labels"], dtype=torch.int64)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} is not a CIFAR-100 file: {error!r}") from error
    is_sound = (
        rows.dtype == np.uint8
        and rows.shape == (len(labels), 3 * IMAGE_SIZE**2)
        and len(coarse) == len(labels) > 0
        and 0 <= int(labels.min()) <= int(labels.max()) < NUM_CLASSES
    )
    if not is_sound:
        raise DataError(f"{path} is not a CIFAR-100 file: images and labels do not fit together")
    images = torch.from_numpy(rows).view(-1, 3, IMAGE_SIZE, IMAGE_SIZE)
    return Split(images, labels), coarse


_RECONSTRUCT = np.empty(0).__reduce__()[0]
_ADMITTED: dict[tuple[str, str], object] = {
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,  # as numpy 1 writes it
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


class _ArrayUnpickler(pickle._Unpickler):
    """Admits numpy arrays and plain containers; a stream that names more runs nothing.

    This is the reader in Python: that in C takes 16 bytes for each number up to the largest one
    that a stream gives to a thing it may come back to, so that 10 bytes fill the memory. So would
    a bytearray, which is as long as it says.
    """

    dispatch = {  # noqa: RUF012 - as the class above has it
        code: load
        for code, load in pickle._Unpickler.dispatch.items()
        if code != pickle.BYTEARRAY8[0]
    }

    def find_class(self, module: str, name: str) -> object:
        """Return what an admitted name stands for."""
        if (module, name) not in _ADMITTED:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return _ADMITTED[module, name]


def _unpickle(path: Path) -> dict[bytes, Any]:
    try:
        content = _ArrayUnpickler(io.BytesIO(path.read_bytes()), encoding="bytes").load()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from error
    except Exception as error:  # a damaged stream makes the unpickler raise nearly anything
        raise DataError(f"{path} is not a CIFAR-100 file: {error}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} is not a CIFAR-100 file: it holds no dictionary")
    return content


def hold_out(labels: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Split indices 0..S-1 in (kept, held out), `size` held out with the same number of each class.

    Pure: the same labels and size give the same split.
    """
    generator = torch.Generator().manual_seed(SPLIT_SEED)
    order = torch.randperm(len(labels), generator=generator)
    by_class = order[labels[order].argsort(stable=True)]
    is_held = ranks_in_class(labels[by_class]) < size // NUM_CLASSES
    return by_class[~is_held].sort().values, by_class[is_held].sort().values


def ranks_in_class(labels: Tensor) -> Tensor:
    """Return for each of the labels, sorted, how many of its class come before it."""
    sizes = labels.bincount()
    return torch.arange(len(labels)) - (sizes.cumsum(0) - sizes)[labels]


def training_splits(dataset: Dataset, config: Config) -> tuple[Split, Split | None]:
    """Return the images to train on and, with `val_size`, those to choose the best weights on."""
    train: Split = dataset.train
    val: Split | None = None
    if config.val_size:
        train, val = map(train.pick, hold_out(train.labels, config.val_size))
    if config.train_size:
        train = train.pick(hold_out(train.labels, config.train_size)[1])
    return train, val
