"""Pictures of the test set as files, to look at and to try `predict` on."""

import csv
import re
from pathlib import Path

import torch
from PIL import Image

from resnet_cifar100.constants import SYNTHETIC
from resnet_cifar100.data.cifar100 import Dataset
from resnet_cifar100.errors import CheckpointError, ConfigError
from resnet_cifar100.storage import replace_csv

COLUMNS = ["file", "label", "class", "superclass", "test_index", "dataset"]
_NAME = re.compile(r"(SYNTHETIC_)?\d\d_\w+_\d{5}\.png")


def write_samples(dataset: Dataset, out: Path, *, per_class: int, seed: int) -> Path:
    """Write `per_class` test images of each class as PNG, and index.csv; return the index.

    Raises:
        ConfigError: for a number of images that the test set does not have, and for an `out` with
            an index.csv of something else.
        CheckpointError: where pictures, or the index, cannot be written to `out`.
    """
    images, labels = dataset.test
    most = int(torch.bincount(labels).min())
    if not 1 <= per_class <= most:
        raise ConfigError(f"--per-class must be in 1 to {most}, got {per_class}")
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    mark = "SYNTHETIC_" if dataset.title == SYNTHETIC else ""
    rows = []
    try:
        out.mkdir(parents=True, exist_ok=True)
        _remove_listed(out)
        for label, name in enumerate(dataset.fine_names):
            for index in order[labels[order] == label][:per_class].tolist():
                file = f"{mark}{label:02d}_{name}_{index:05d}.png"
                Image.fromarray(images[index].permute(1, 2, 0).numpy()).save(out / file)
                coarse = dataset.coarse_names[dataset.fine_to_coarse[label]]
                rows.append((file, label, name, coarse, index, dataset.title))
    except OSError as error:
        raise CheckpointError(f"{out} cannot be written ({error.strerror or error})") from error
    replace_csv(out / "index.csv", [COLUMNS, *rows])
    return out / "index.csv"


def _remove_listed(out: Path) -> None:
    """Remove the pictures of an earlier call, so that no two sets mix; other files stay."""
    index = out / "index.csv"
    if not index.exists():
        return
    with index.open(newline="", errors="replace") as file:
        reader = csv.DictReader(file)
        if reader.fieldnames != COLUMNS:
            raise ConfigError(f"{index} is not by this command; name another folder with --out")
        for name in (row["file"] for row in reader):
            if _NAME.fullmatch(name):
                (out / name).unlink(missing_ok=True)
