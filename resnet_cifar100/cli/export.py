"""The command that writes a network in another form."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from resnet_cifar100.cli.measure import default_checkpoint
from resnet_cifar100.cli.screen import say
from resnet_cifar100.errors import ConfigError

if TYPE_CHECKING:
    from resnet_cifar100.bundle import Bundle

_OUT = {
    "onnx": Path("exports/model.onnx"),
    "web": Path("exports/web/index.html"),
    "safetensors": Path("exports/model.safetensors"),
}


def export(
    kind: tyro.conf.Positional[Literal["onnx", "web", "safetensors"]],
    checkpoint_path: Path | None = None,
    out: Path | None = None,
    int8: bool = False,
    data_dir: Path | None = None,
) -> None:
    """Write a network as an ONNX file, as a web page that runs in the browser, or in fp16.

    Args:
        kind: onnx, one file that needs neither PyTorch nor this project to run; or web, one HTML
            file that needs no server, its largest weights rounded to 8 bits, for which npm is
            needed; or safetensors, the same as best_model.pth at half the size: fp16.
        checkpoint_path: A best_model.pth or .safetensors file; by default your own
            checkpoints/best_model.pth, else the weights that come with the repository.
        out: The file to write; by default model.onnx, web/index.html or model.safetensors, in
            exports/.
        int8: Write an ONNX file in 8-bit integers too, as NAME-int8.onnx, with a card NAME-int8.md
            of what that costs and gives. Needs the data set.
        data_dir: Folder that holds cifar-100-python; by default the one that the run used. Without
            the data set, answers are compared on drawings.
    """
    from resnet_cifar100.bundle import load_bundle, save_safetensors, without_folders
    from resnet_cifar100.export.files import write_card, write_int8, write_onnx
    from resnet_cifar100.runtime import keep_freed_memory

    out = out or _OUT[kind]
    if out.suffix != _OUT[kind].suffix:
        raise ConfigError(f"--out must be a file name ending in {_OUT[kind].suffix}, got {out}")
    if int8 and kind != "onnx":
        raise ConfigError("--int8 is for onnx")
    keep_freed_memory()
    whole = load_bundle(checkpoint_path or default_checkpoint())
    bundle = without_folders(whole)
    data_dir = data_dir or whole.config.data_dir
    if kind == "web":
        _export_page(bundle, out, data_dir)
        return
    if kind == "safetensors":
        save_safetensors(bundle, out)
        say(f"{out}, {out.stat().st_size / 1e6:.1f} MB")
        return
    write_onnx(bundle, out, data_dir, say)
    if int8:
        path = write_int8(bundle, out, data_dir, say)
        write_card(bundle, out, path, data_dir, say)
        say(path.with_suffix(".md").read_text())


def _export_page(bundle: "Bundle", out: Path, data_dir: Path) -> None:
    from resnet_cifar100.bundle import describe
    from resnet_cifar100.export.files import write_onnx, write_small
    from resnet_cifar100.export.web import fetch_runtime, save_page
    from resnet_cifar100.serve.predictor import LEAST_PROB

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        runtime = fetch_runtime(folder / "runtime")
        write_onnx(bundle, folder / "model.onnx", data_dir, say)
        network = write_small(bundle, folder / "model.onnx", data_dir, say).read_bytes()
        save_page(out, network, describe(bundle), runtime, LEAST_PROB)
    size, own = out.stat().st_size / 1e6, len(network) / 1e6
    say(f"{out}, {size:.1f} MB, of which the network is {own:.1f}: open it in a browser.")
