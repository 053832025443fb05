"""The folders that are published: a network and its Space, with nothing in them but what is listed.

A folder is written whole, checked, and only then pushed (hub.py).
"""

import json
import shutil
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path

import torch
from huggingface_hub import SpaceCard

from resnet_cifar100 import __version__
from resnet_cifar100.analysis.analyze import Options, analyze
from resnet_cifar100.bundle import Bundle, describe, load_bundle, without_folders
from resnet_cifar100.errors import CheckpointError, ExportError
from resnet_cifar100.export.files import has_data, write_card, write_int8, write_onnx
from resnet_cifar100.export.modelcard import render_eval_results, render_model_card
from resnet_cifar100.export.pretrained import Classifier
from resnet_cifar100.storage import replace_file, sha256_of

MANIFEST = "manifest.json"
ROOT = Path(__file__).resolve().parents[2]
_PACKAGE = "resnet_cifar100"
# What reads a published network, and what serves one: files of the package, none of training.
_READER = (
    *("__init__.py", "constants.py", "errors.py", "config.py", "storage.py", "bundle.py"),
    *("data/__init__.py", "data/transforms.py", "models/*.py"),
    *("export/__init__.py", "export/pretrained.py"),
)
_SERVER = (
    *("__init__.py", "constants.py", "errors.py", "config.py", "recipes.py", "cli/*.py"),
    *("data/__init__.py", "data/images.py", "data/drawings.py", "serve/*.py"),
)
# All that may leave, by kind of repository.
ALLOWED = {
    "model": (
        *("README.md", "LICENSE", MANIFEST, "config.json", "model.safetensors", "model.onnx"),
        *("model-int8.onnx", "model-int8.md", ".eval_results/cifar100.yaml"),
        *("report/report.md", "report/report.html", "report/metrics.json", "report/*.csv"),
        *("report/figures/*-light.png", "report/figures/*-dark.png"),
        *(f"{_PACKAGE}/{name}" for name in _READER),
    ),
    "space": (
        *("README.md", "LICENSE", MANIFEST, "app.py", "requirements.txt", "model.onnx"),
        *(f"{_PACKAGE}/{name}" for name in _SERVER),
    ),
}
Say = Callable[[str], None]


def write_model_folder(
    folder: Path, repo: str, checkpoint: Path, record: Path | None, data_dir: Path | None, say: Say
) -> None:
    """Write all that is published of the weights in `checkpoint`.

    Without the data set there is no 8-bit file and no report, and `say` is told so.

    Raises:
        CheckpointError: for weights that cannot be read, or a folder that cannot be written.
        ExportError: where `folder` holds other files, or an exported file answers otherwise.
    """
    bundle = without_folders(load_bundle(checkpoint))
    _clear(folder, "model")
    Classifier(bundle).save_pretrained(folder)
    write_onnx(bundle, folder / "model.onnx", data_dir, say)
    measured = None
    if has_data(bundle, data_dir):
        int8 = write_int8(bundle, folder / "model.onnx", data_dir, say)
        measured = write_card(bundle, folder / "model.onnx", int8, data_dir, say)
        options = Options(device=torch.device("cpu"), data_dir=data_dir, with_images=False)
        analyze(checkpoint, record, folder / "report", options, say)
        (folder / "report/predictions.npz").unlink()
    else:
        say("Without the data set there is no file in 8-bit integers and no report.")
    metrics = bundle.provenance["metrics"]
    if bundle.provenance["dataset"] != "SYNTHETIC" and "test/top1" in metrics:
        replace_file(folder / ".eval_results/cifar100.yaml", render_eval_results(bundle))
    _copy_sources(_READER, folder)
    card = render_model_card(bundle, repo, folder, measured, _files(folder))
    replace_file(folder / "README.md", card)
    _write_manifest(folder, "model")
    _check_answers(folder, bundle)


def write_space_folder(folder: Path, repo: str, network: Path) -> None:
    """Write the Space `repo`: the web page of huggingface_app, with the ONNX file `network`.

    Raises:
        CheckpointError: where it cannot be written.
        ExportError: where `folder` holds other files.
    """
    _clear(folder, "space")
    door = ROOT / "huggingface_app"
    for name in ("app.py", "requirements.txt"):
        replace_file(folder / name, (door / name).read_bytes())
    replace_file(folder / "model.onnx", network.read_bytes())
    card = SpaceCard.load(door / "README.md")
    card.data.models = [repo]
    replace_file(folder / "README.md", str(card))
    _copy_sources(_SERVER, folder)
    _write_manifest(folder, "space")


def check_folder(folder: Path, kind: str, secret: str | None) -> list[str]:
    """Return the files of `folder`, sorted; they are what the manifest says, and may all leave.

    Raises:
        ExportError: for a file that may not leave, has changed, or holds `secret`.
    """
    manifest = json.loads((folder / MANIFEST).read_text())["files"]
    found = _files_in(folder)
    if stray := [name for name in found if not is_allowed(name, kind)]:
        raise ExportError(f"{folder / stray[0]} is not among the files that may leave; remove it")
    for name in found:
        content = (folder / name).read_bytes()
        if secret and secret.encode() in content:
            raise ExportError(f"{folder / name} holds your token; nothing was sent")
        if name != MANIFEST and manifest.get(name, {}).get("sha256") != sha256_of(content):
            raise ExportError(f"{folder / name} is not the file that was written; nothing was sent")
    return found


def is_allowed(name: str, kind: str) -> bool:
    """Whether a file of this name may leave in a repository of this kind."""
    depth = name.count("/")
    return any(
        fnmatchcase(name, pattern) and pattern.count("/") == depth for pattern in ALLOWED[kind]
    )


def _clear(folder: Path, kind: str) -> None:
    """Remove what an earlier export wrote. ExportError where there is anything else."""
    found = _files_in(folder)
    if stray := [name for name in found if not is_allowed(name, kind)]:
        raise ExportError(
            f"{folder} holds {stray[0]}, which no export wrote; move it, or name another --out"
        )
    try:
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be written to ({error.strerror})") from error


def _copy_sources(patterns: tuple[str, ...], folder: Path) -> None:
    package = Path(__file__).resolve().parents[1]
    for path in (path for pattern in patterns for path in sorted(package.glob(pattern))):
        replace_file(folder / _PACKAGE / path.relative_to(package), path.read_bytes())
    replace_file(folder / "LICENSE", (ROOT / "LICENSE").read_bytes())


def _files(folder: Path) -> list[str]:
    """Return a line of Markdown for each file that a reader may want."""
    lines = {
        "model.onnx": "the network with its preprocessing and names, for ONNX Runtime",
        "model-int8.onnx": "the same in 8-bit integers; [what that costs](model-int8.md)",
        "model.safetensors": "the weights in fp32, with what they need to be used and judged",
        "config.json": "architecture, classes, preprocessing, calibration, settings of the run",
        "resnet_cifar100/": "the Python that reads model.safetensors; nothing of the training",
        "report/": "what it gets right and wrong, figure by figure",
        MANIFEST: "the SHA-256 of every file",
    }
    there = {name: text for name, text in lines.items() if (folder / name).exists()}
    return [f"- `{name}`: {text}" for name, text in {**there, MANIFEST: lines[MANIFEST]}.items()]


def _write_manifest(folder: Path, kind: str) -> None:
    files = {}
    for name in _files_in(folder):
        content = (folder / name).read_bytes()
        files[name] = {"bytes": len(content), "sha256": sha256_of(content)}
    manifest = {"kind": kind, "made_by": f"resnet_cifar100 {__version__}", "files": files}
    replace_file(folder / MANIFEST, json.dumps(manifest, indent=2) + "\n")


def _check_answers(folder: Path, bundle: Bundle) -> None:
    """Load the folder as a stranger would, and compare. ExportError where it answers otherwise."""
    images = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8)
    published = Classifier.from_pretrained(folder)
    with torch.inference_mode():
        is_same = torch.equal(published(images), bundle.logits(images))
    if not is_same or describe(published.bundle) != describe(bundle):
        raise ExportError(f"{folder} answers otherwise than the checkpoint; nothing was sent")


def _files_in(folder: Path) -> list[str]:
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()
    )
