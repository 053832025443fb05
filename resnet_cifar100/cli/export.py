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
) -> None:
    """Write a checkpoint as one ONNX file that needs neither PyTorch nor this project to run.

    Args:
        kind: onnx.
        checkpoint_path: A best_model.pth or .safetensors file; by default your own
            checkpoints/best_model.pth, else the weights that come with the repository.
        out: The file to write.
    """
    from resnet_cifar100.bundle import load_bundle
    from resnet_cifar100.export.onnx import save_onnx

    if out.suffix != f".{kind}":
        raise ConfigError(f"--out must be a file name ending in .{kind}, got {out}")
    save_onnx(load_bundle(checkpoint_path or default_checkpoint()), out)
    say(f"{out}, {out.stat().st_size / 1e6:.1f} MB")
