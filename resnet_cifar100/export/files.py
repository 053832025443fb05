"""The files of an export, each compared with the network in PyTorch before anybody relies on it."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from resnet_cifar100.bundle import Bundle
from resnet_cifar100.constants import SYNTHETIC
from resnet_cifar100.data.cifar100 import find_cifar100
from resnet_cifar100.data.drawings import write_drawings
from resnet_cifar100.data.images import load_image
from resnet_cifar100.engine.evaluate import load_split
from resnet_cifar100.errors import ExportError
from resnet_cifar100.export.card import render_card
from resnet_cifar100.export.forms import (
    Comparison,
    compare_forms,
    compiled,
    eager,
    predict_all,
    run_onnx,
)
from resnet_cifar100.export.onnx import save_onnx
from resnet_cifar100.export.quantize import CALIBRATION_IMAGES, save_int8
from resnet_cifar100.export.shrink import save_small
from resnet_cifar100.storage import replace_file

PARITY_IMAGES = 1000
SMALL_BYTES = 7_500_000  # of the weights in a page
MOST_DIFFERENCE = 1e-4  # of a probability
MOST_LOST = 0.005  # of top-1, in 8 bits, without a word of caution
Say = Callable[[str], None]


def write_onnx(bundle: Bundle, path: Path, data_dir: Path | None, say: Say) -> None:
    """Write the ONNX file and compare its answers with PyTorch's on test images, or on drawings.

    Raises:
        CheckpointError: where it cannot be written.
        DataError: where the data set is damaged.
        ExportError: where the answers differ; what stood at `path` is then untouched.
    """
    with tempfile.TemporaryDirectory() as folder:
        unchecked = Path(folder, path.name)
        save_onnx(bundle, unchecked)
        difference = _compare(bundle, unchecked, data_dir, say)
        if not difference <= MOST_DIFFERENCE:
            raise ExportError(
                f"{path} was not written: it would answer otherwise than PyTorch (probabilities "
                f"{difference:.1g} apart)"
            )
        replace_file(path, unchecked.read_bytes())


def write_small(bundle: Bundle, source: Path, data_dir: Path | None, say: Say) -> Path:
    """Write the ONNX file `source` small enough for a page, as NAME-small.onnx; return its path.

    Raises:
        CheckpointError: where it cannot be written.
        DataError: where the data set is damaged.
    """
    path = source.with_stem(f"{source.stem}-small")
    save_small(source, path, SMALL_BYTES)
    _compare(bundle, path, data_dir, say)
    if path.stat().st_size > 1.1 * SMALL_BYTES:
        say(f"It is too large a network for {SMALL_BYTES / 1e6:.1f} MB; the page will be heavy.")
    return path


def write_int8(bundle: Bundle, source: Path, data_dir: Path | None, say: Say) -> Path:
    """Write the ONNX file `source` in 8-bit integers too, as NAME-int8.onnx, and return its path.

    Raises:
        CheckpointError: where it cannot be written.
        DataError: where the data set cannot be had.
    """
    dataset, train = load_split(bundle.provenance, "train", data_dir)
    order = torch.randperm(len(train.labels), generator=torch.Generator().manual_seed(0))
    path = source.with_stem(f"{source.stem}-int8")
    say(f"Fitting ranges on {CALIBRATION_IMAGES:,} training images of {dataset.title} ...")
    save_int8(source, path, train.images[order[:CALIBRATION_IMAGES]].numpy())
    return path


def write_card(
    bundle: Bundle, source: Path, int8: Path, data_dir: Path | None, say: Say
) -> Comparison:
    """Measure an ONNX file and its 8-bit form, and write what that costs beside it, NAME-int8.md.

    Raises:
        CheckpointError: where it cannot be written.
        DataError: where the data set cannot be had.
    """
    comparison = compare_files(bundle, (source, int8), data_dir, say)
    replace_file(int8.with_suffix(".md"), render_card(bundle, comparison))
    lost = comparison.reference.top1 - comparison.forms[int8.name].top1
    if lost > MOST_LOST:
        say(f"Caution: 8 bits cost this network {100 * lost:.2f} points of top-1.")
    return comparison


def compare_files(
    bundle: Bundle,
    paths: Sequence[Path],
    data_dir: Path | None,
    say: Say,
    *,
    is_compiled: bool = False,
) -> Comparison:
    """Measure the network in PyTorch and its ONNX files on all test images, in one run.

    Raises:
        DataError: where the data set cannot be had.
    """
    dataset, test = load_split(bundle.provenance, "test", data_dir)
    forms = {"PyTorch, eager": eager(bundle)}
    if is_compiled:
        forms["PyTorch, compiled"] = compiled(bundle)
    forms |= {path.name: run_onnx(path) for path in paths}
    say(f"Measuring on {len(test.labels):,} test images of {dataset.title} ...")
    return Comparison(
        forms=compare_forms(forms, test.images.numpy(), test.labels.numpy()),
        sizes={path.name: path.stat().st_size for path in paths},
        images=len(test.labels),
    )


def has_data(bundle: Bundle, data_dir: Path | None) -> bool:
    """Whether the data that a network was trained on is at hand, without a download."""
    if bundle.provenance["dataset"] == SYNTHETIC:
        return True
    folder = data_dir or bundle.config.data_dir
    return find_cifar100(folder) is not None


def _compare(bundle: Bundle, path: Path, data_dir: Path | None, say: Say) -> float:
    """Say how far the answers of a file are from PyTorch's; return the largest difference."""
    images, what = _pictures(bundle, data_dir)
    ours, theirs = (predict_all(one, images) for one in (eager(bundle), run_onnx(path)))
    same, difference = int((ours.argmax(1) == theirs.argmax(1)).sum()), abs(ours - theirs).max()
    say(
        f"{path.name}, {path.stat().st_size / 1e6:.1f} MB: the same class as PyTorch on {same:,} "
        f"of {len(images):,} {what}; probabilities differ by at most {difference:.1g}."
    )
    return float(difference)


def _pictures(bundle: Bundle, data_dir: Path | None) -> tuple[np.ndarray, str]:
    """Return test images where the data set is at hand, else a few drawings, and what they are."""
    if has_data(bundle, data_dir):
        dataset, test = load_split(bundle.provenance, "test", data_dir)
        return test.images[:PARITY_IMAGES].numpy(), f"{dataset.title} test images"
    with tempfile.TemporaryDirectory() as name:
        drawn = [load_image(path) for path in write_drawings(Path(name))]
    return np.stack(drawn).transpose(0, 3, 1, 2).copy(), "drawings"
