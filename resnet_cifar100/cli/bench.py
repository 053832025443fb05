"""The command that measures how fast a network answers."""

import json
import tempfile
from pathlib import Path
from typing import Literal

import tyro

from resnet_cifar100.cli.measure import default_checkpoint
from resnet_cifar100.cli.screen import say


def bench(
    kind: tyro.conf.Positional[Literal["inference"]],
    checkpoint_path: Path | None = None,
    out: Path | None = None,
    data_dir: Path | None = None,
) -> None:
    """Measure a network in each form, side by side: size, top-1, images/s, time of one image.

    Args:
        kind: What to measure.
        checkpoint_path: A best_model.pth or .safetensors file; by default your own
            checkpoints/best_model.pth, else the weights that come with the repository.
        out: Folder for inference.md and inference.json; by default the table is only shown.
        data_dir: Folder that holds cifar-100-python; by default the one that the run used.
    """
    import torch

    from resnet_cifar100.bundle import load_bundle
    from resnet_cifar100.export.card import render_benchmark
    from resnet_cifar100.export.files import compare_files, write_int8, write_onnx
    from resnet_cifar100.runtime import compile_fault, environment, keep_freed_memory
    from resnet_cifar100.storage import replace_file

    keep_freed_memory()
    bundle = load_bundle(checkpoint_path or default_checkpoint())
    if fault := compile_fault(torch.device("cpu")):
        say(f"Not compiled: torch.compile does not work here ({fault}).")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        write_onnx(bundle, path, data_dir, say)
        paths = (path, write_int8(bundle, path, data_dir, say))
        measured = compare_files(bundle, paths, data_dir, say, is_compiled=not fault)
    page = render_benchmark(bundle, measured)
    say(page)
    if out:
        forms = {name: form._asdict() for name, form in measured.forms.items()}
        result = {"forms": forms, "bytes": measured.sizes, "images": measured.images}
        replace_file(out / "inference.md", page)
        text = json.dumps({**result, "environment": environment()}, indent=2)
        replace_file(out / "inference.json", text + "\n")
