"""The folders that are published: a network and its Space, with nothing in them but what is listed.

A folder is written whole, checked, and only then pushed (hub.py).
"""

import contextlib
import json
import shutil
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from huggingface_hub import SpaceCard

from resnet_cifar100 import __version__
from resnet_cifar100.analysis.analyze import Options, analyze
from resnet_cifar100.bundle import Bundle, describe, load_bundle, without_folders
from resnet_cifar100.constants import SYNTHETIC
from resnet_cifar100.errors import CheckpointError, ExportError
from resnet_cifar100.export.files import Say, has_data, write_card, write_int8, write_onnx
from resnet_cifar100.export.modelcard import has_results, render_eval_results, render_model_card
from resnet_cifar100.export.pretrained import Classifier
from resnet_cifar100.storage import replace_file, sha256_of

MANIFEST = "manifest.json"
_PACKAGE = "resnet_cifar100"
# What reads a published network, and what serves one: files of the package, none of training.
_READER = (
    *("__init__.py", "constants.py", "errors.py", "limits.py", "config.py", "description.py"),
    *("storage.py", "bundle.py"),
    *("data/__init__.py", "data/transforms.py", "models/*.py", "kernels/*.py"),
    *("export/__init__.py", "export/pretrained.py"),
)
_SERVER = (
    *("__init__.py", "constants.py", "errors.py", "limits.py", "config.py", "description.py"),
    *("markdown.py", "recipes.py", "cli/*.py"),
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


def write_model_folder(
    folder: Path, repo: str, checkpoint: Path, record: Path | None, data_dir: Path | None, say: Say
) -> None:
    """Write all that is published of the weights in `checkpoint`.

    Without the data set there is no 8-bit file and no report, and `say` is told so.

    Raises:
        CheckpointError: for weights that cannot be read, or a folder that cannot be written.
        ExportError: where `folder` holds other files, or an exported file answers otherwise.
    """
    whole = load_bundle(checkpoint)
    bundle = without_folders(whole)
    data_dir = data_dir or whole.config.data_dir
    for name in ("LICENSE", "huggingface_app"):
        _beside_package(name)  # before minutes of work
    with _new_folder(folder) as new:
        Classifier(bundle).save_pretrained(new)
        write_onnx(bundle, new / "model.onnx", data_dir, say)
        measured = None
        if has_data(bundle, data_dir):
            int8 = write_int8(bundle, new / "model.onnx", data_dir, say)
            measured = write_card(bundle, new / "model.onnx", int8, data_dir, say)
            options = Options(device=torch.device("cpu"), data_dir=data_dir, with_images=False)
            analyze(checkpoint, record, new / "report", options, say)
            (new / "report/predictions.npz").unlink()
        else:
            say("Without the data set there is no file in 8-bit integers and no report.")
        if has_results(bundle):
            text = render_eval_results(bundle, measured)
            replace_file(new / ".eval_results/cifar100.yaml", text)
        _copy_sources(_READER, new)
        card = render_model_card(bundle, repo, new, measured, _file_lines(new))
        replace_file(new / "README.md", card)
        _write_manifest(new, "model")
        _check_answers(new, bundle)


def write_space_folder(folder: Path, repo: str, model: Path) -> None:
    """Write the Space `repo`: the page of huggingface_app, with the network of the folder `model`.

    Raises:
        CheckpointError: where it cannot be written.
        ExportError: where `folder` holds other files.
    """
    app = _beside_package("huggingface_app")
    with _new_folder(folder) as new:
        for name in ("app.py", "requirements.txt"):
            replace_file(new / name, (app / name).read_bytes())
        replace_file(new / "model.onnx", (model / "model.onnx").read_bytes())
        card = SpaceCard.load(app / "README.md")
        card.data.models = [repo]
        if json.loads((model / "config.json").read_text())["provenance"]["dataset"] == SYNTHETIC:
            card.data.datasets = None
            card.data.short_description = "SYNTHETIC: knows drawn shapes only"
            card.text = "\n# SYNTHETIC\n\nThis network knows drawn shapes only, not CIFAR-100.\n"
        replace_file(new / "README.md", str(card))
        _copy_sources(_SERVER, new)
        _write_manifest(new, "space")


def check_folder(folder: Path, kind: str, secret: str | None) -> list[str]:
    """Return the files of `folder`, sorted; they are what the manifest says, and may all leave.

    Raises:
        ExportError: for a file that may not leave, has changed, or holds `secret`.
    """
    manifest = read_manifest(folder)
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


def read_manifest(folder: Path) -> dict[str, dict[str, Any]]:
    """Return name -> bytes, sha256 of what this project wrote there; nothing where it did not."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        is_ours = manifest["made_by"].startswith(f"{_PACKAGE} ")
        return dict(manifest["files"]) if is_ours else {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


@contextlib.contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """Give a new folder to write, which takes the place of `folder` once all is there.

    Raises:
        CheckpointError: where it cannot be written.
        ExportError: where `folder` holds what no export wrote, or another export is writing it.
    """
    new = folder.with_name(f".{folder.name}.new")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{folder.name}.lock"), timeout=0):
            known = {MANIFEST, *read_manifest(folder)}
            if stray := [name for name in _files_in(folder) if name not in known]:
                raise ExportError(
                    f"{folder} holds {stray[0]}, which no export wrote; move it, or name "
                    "another --out"
                )
            shutil.rmtree(new, ignore_errors=True)  # of an export that was killed
            new.mkdir()
            yield new
            if folder.exists():
                shutil.rmtree(folder)
            new.rename(folder)
    except Timeout as error:
        raise ExportError(f"Another export is writing {folder}; name another --out") from error
    except OSError as error:
        reason = error.strerror or error
        raise CheckpointError(f"{folder} cannot be written to ({reason})") from error


def _copy_sources(patterns: tuple[str, ...], folder: Path) -> None:
    package = Path(__file__).resolve().parents[1]
    for path in (path for pattern in patterns for path in sorted(package.glob(pattern))):
        replace_file(folder / _PACKAGE / path.relative_to(package), path.read_bytes())
    replace_file(folder / "LICENSE", _beside_package("LICENSE").read_bytes())


def _beside_package(name: str) -> Path:
    """Return a file or folder of the clone. ExportError where the package stands alone."""
    path = Path(__file__).resolve().parents[2] / name
    if not path.exists():
        raise ExportError(f"push needs {name} of this project: call it from a clone")
    return path


def _file_lines(folder: Path) -> list[str]:
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
    return [
        f"- `{name}`: {text}"
        for name, text in lines.items()
        if name == MANIFEST or (folder / name).exists()
    ]


def _write_manifest(folder: Path, kind: str) -> None:
    files = {}
    for name in _files_in(folder):
        content = (folder / name).read_bytes()
        files[name] = {"bytes": len(content), "sha256": sha256_of(content)}
    manifest = {"kind": kind, "made_by": f"resnet_cifar100 {__version__}", "files": files}
    replace_file(folder / MANIFEST, json.dumps(manifest, indent=2) + "\n")


def _check_answers(folder: Path, bundle: Bundle) -> None:
    """Compare what is read from the folder, bit for bit. ExportError where it differs."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8, generator=generator)
    published = Classifier.from_pretrained(folder)
    with torch.inference_mode():
        is_same = torch.equal(published(images), bundle.logits(images))
    if not is_same or describe(published.bundle) != describe(bundle):
        raise ExportError(f"{folder} answers otherwise than the checkpoint; nothing was sent")


def _files_in(folder: Path) -> list[str]:
    """Return the names of all files, but for what Python leaves where it runs."""
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if not path.is_dir() and path.parent.name != "__pycache__"
    )
