"""The command that writes a network in another form."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from resnet_cifar100.cli.measure import default_checkpoint
from resnet_cifar100.cli.screen import say
from resnet_cifar100.config import Config
from resnet_cifar100.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np

    from resnet_cifar100.bundle import Bundle

PARITY_IMAGES = 1000


def export(
    kind: tyro.conf.Positional[Literal["onnx"]],
    checkpoint_path: Path | None = None,
    out: Path = Path("exports/model.onnx"),
    int8: bool = False,
    data_dir: Path | None = None,
) -> None:
    """Write a checkpoint as one ONNX file that needs neither PyTorch nor this project to run.

    Args:
        kind: onnx.
        checkpoint_path: A best_model.pth or .safetensors file; by default your own
            checkpoints/best_model.pth, else the weights that come with the repository.
        out: The file to write.
        int8: Write it in 8-bit integers too, as NAME-int8.onnx, with a card NAME-int8.md of what
            that costs and gives. Needs the data set.
        data_dir: Folder that holds cifar-100-python; by default the one that the run used.
    """
    from resnet_cifar100.bundle import load_bundle
    from resnet_cifar100.export.forms import eager, onnx, predict_all
    from resnet_cifar100.export.onnx import save_onnx
    from resnet_cifar100.runtime import keep_freed_memory

    if out.suffix != f".{kind}":
        raise ConfigError(f"--out must be a file name ending in .{kind}, got {out}")
    keep_freed_memory()
    bundle = load_bundle(checkpoint_path or default_checkpoint())
    save_onnx(bundle, out)
    say(f"{out}, {out.stat().st_size / 1e6:.1f} MB")
    if int8:
        _export_int8(bundle, out, data_dir)
        return
    images, what = _pictures(bundle, data_dir)
    ours, theirs = (predict_all(one, images) for one in (eager(bundle), onnx(out)))
    same = int((ours.argmax(1) == theirs.argmax(1)).sum())
    say(
        f"The same class as PyTorch on {same:,} of {len(images):,} {what}; probabilities differ by "
        f"at most {abs(ours - theirs).max():.1g}."
    )


def _pictures(bundle: "Bundle", data_dir: Path | None) -> tuple["np.ndarray", str]:
    """Return test images where the data set is at hand, else a few drawings, and what they are."""
    import numpy as np

    from resnet_cifar100.data.cifar100 import find_cifar100
    from resnet_cifar100.data.drawings import write_drawings
    from resnet_cifar100.data.images import load_image
    from resnet_cifar100.engine.evaluate import load_split

    folder = data_dir or Config.from_json(bundle.provenance["config"]).data_dir
    if bundle.provenance["dataset"] == "SYNTHETIC" or find_cifar100(folder):
        dataset, test = load_split(bundle, "test", folder)
        return test.images[:PARITY_IMAGES].numpy(), f"{dataset.title} test images"
    with tempfile.TemporaryDirectory() as name:
        drawn = [load_image(path) for path in write_drawings(Path(name))]
    return np.stack(drawn).transpose(0, 3, 1, 2).copy(), "drawings"


def _export_int8(bundle: "Bundle", source: Path, data_dir: Path | None) -> None:
    """Write the file in 8-bit integers and its card, and show the card."""
    import torch

    from resnet_cifar100.engine.evaluate import load_split
    from resnet_cifar100.export.card import render_card
    from resnet_cifar100.export.forms import compare_forms, eager, onnx
    from resnet_cifar100.export.quantize import CALIBRATION_IMAGES, save_int8
    from resnet_cifar100.storage import replace_file

    dataset, train = load_split(bundle, "train", data_dir)
    order = torch.randperm(len(train.labels), generator=torch.Generator().manual_seed(0))
    path = source.with_stem(f"{source.stem}-int8")
    say(f"Fitting ranges on {CALIBRATION_IMAGES} training images of {dataset.title} ...")
    save_int8(source, path, train.images[order[:CALIBRATION_IMAGES]].numpy())
    say(f"Measuring on {len(dataset.test.labels):,} test images ...")
    forms = {"PyTorch, eager": eager(bundle), source.name: onnx(source), path.name: onnx(path)}
    measured = compare_forms(forms, dataset.test.images.numpy(), dataset.test.labels.numpy())
    sizes = {one.name: one.stat().st_size for one in (source, path)}
    card = render_card(bundle, measured, sizes, len(dataset.test.labels))
    replace_file(path.with_suffix(".md"), card)
    say(card)
