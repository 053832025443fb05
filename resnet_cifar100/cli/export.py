"""The command that writes a network in another form."""

from pathlib import Path
from typing import Literal

import tyro

from resnet_cifar100.cli.measure import default_checkpoint
from resnet_cifar100.cli.screen import say
from resnet_cifar100.errors import ConfigError


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
    from resnet_cifar100.export.files import write_card, write_int8, write_onnx
    from resnet_cifar100.runtime import keep_freed_memory

    if out.suffix != f".{kind}":
        raise ConfigError(f"--out must be a file name ending in .{kind}, got {out}")
    keep_freed_memory()
    bundle = load_bundle(checkpoint_path or default_checkpoint())
    write_onnx(bundle, out, data_dir, say)
    if int8:
        path = write_int8(bundle, out, data_dir, say)
        write_card(bundle, out, path, data_dir, say)
        say(path.with_suffix(".md").read_text())
