"""One HTML file that answers about pictures in a browser: no server, no request, all inside.

It runs an ONNX file of this project in the WebAssembly build of ONNX Runtime. That comes from npm,
pinned and checked, whenever a page is made.
"""

import base64
import gzip
import hashlib
import io
import json
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from resnet_cifar100.data.drawings import write_drawings
from resnet_cifar100.description import result_of
from resnet_cifar100.errors import ExportError
from resnet_cifar100.storage import replace_file

PACKAGE = "onnxruntime-web@1.30.0"
SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
EXAMPLES = ("sunflower", "orange", "sea", "letters")

_SCRIPT, _WASM = "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"
_LICENCES = ("LICENSE", "ThirdPartyNotices.txt")
_PAGE = Path(__file__).with_name("page")
_SHOWN = ("fine_names", "coarse_names", "fine_to_coarse", "model", "calibration")


def save_page(
    path: Path, network: bytes, description: Mapping[str, Any], runtime: Path, least_prob: float
) -> None:
    """Write the page to `path`; beside an index.html a README.md too, if there is none.

    That makes the folder a static Space.

    `network` is an ONNX file, `description` that of its bundle, `runtime` the folder that
    `fetch_runtime` filled; below a probability of `least_prob` no class is named.

    Raises:
        CheckpointError: where it cannot be written.
    """
    inline = {
        "style": (_PAGE / "style.css").read_text("utf-8"),
        "page": (_PAGE / "page.js").read_text("utf-8"),
        "runtime": _as_inline_module((runtime / _SCRIPT).read_text("utf-8")),
    }
    digests = {name: hashlib.sha256(text.encode()).digest() for name, text in inline.items()}
    licences = "\n".join((runtime / name).read_text("utf-8") for name in _LICENCES)
    examples = _examples()
    parts = {
        **inline,
        **{f"{name}_sha256": _base64(digest) for name, digest in digests.items()},
        "icon": examples[EXAMPLES[0]],
        "examples": "\n".join(
            f'<button type="button"><img src="{address}" alt="Drawing: {name}"></button>'
            for name, address in examples.items()
        ),
        "facts": _facts(description, least_prob),
        "network": _packed(network),
        "wasm": _packed((runtime / _WASM).read_bytes()),
        "licences": licences.replace("-->", "-- >"),  # which would end their comment
    }
    frame = Template((_PAGE / "index.html").read_text("utf-8"))
    replace_file(path, frame.substitute(parts))
    if path.name == "index.html" and not path.with_name("README.md").exists():
        replace_file(path.with_name("README.md"), (_PAGE / "README.md").read_bytes())


def fetch_runtime(folder: Path) -> Path:
    """Put the WebAssembly build of ONNX Runtime and its licences into `folder`; return `folder`.

    Raises:
        ExportError: where npm is missing or cannot get the package, or it is not the pinned one.
        CheckpointError: where `folder` cannot be written.
    """
    content = _npm_pack()
    if _base64(hashlib.sha512(content).digest()) != SHA512:
        raise ExportError(
            f"npm gave another {PACKAGE} than the one that this project was written for: its "
            "SHA-512 does not match; try `npm cache clean --force`, or another registry"
        )
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        for name in (_SCRIPT, _WASM):
            member = archive.extractfile(f"package/dist/{name}")
            assert member is not None  # the checksum says that it is there
            replace_file(folder / name, member.read())
    for name in _LICENCES:  # the npm package holds none; Python's, of the same source, does
        replace_file(folder / name, resources.files("onnxruntime").joinpath(name).read_bytes())
    return folder


def _npm_pack() -> bytes:
    """Return the tarball of PACKAGE."""
    npm = shutil.which("npm")
    if npm is None:
        raise ExportError(f"A web page needs npm, to get {PACKAGE}: install Node.js")
    with tempfile.TemporaryDirectory() as folder:
        command = [npm, "pack", PACKAGE, "--prefer-offline", "--pack-destination", folder]
        try:
            subprocess.run(command, cwd=folder, capture_output=True, check=True, timeout=600)
            (tarball,) = Path(folder).glob("*.tgz")
            return tarball.read_bytes()
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            raise ExportError(
                f"npm cannot get {PACKAGE}: check the network, or try `npm pack {PACKAGE}`"
            ) from error


def _as_inline_module(module: str) -> str:
    """Return a bundled module as a script that leaves its exports in the global `ort`.

    It is not to know where it stands: Firefox has no origin to resolve a file:// address with, and
    developer tools would ask there for a source map.
    """
    code, _, exports = module.rpartition("export{")
    names = re.sub(r"([\w$]+) as (\w+)", r"\2:\1", exports.partition("}")[0])
    return code.replace("import.meta.url", "undefined") + f"globalThis.ort={{{names}}};"


def _facts(description: Mapping[str, Any], least_prob: float) -> str:
    """Return as JSON what the page shows, which is nothing of the machine that trained.

    No parser of HTML finds an end of a script or a comment in it.
    """
    provenance = description["provenance"]
    facts = {
        **{key: description[key] for key in _SHOWN},
        "dataset": provenance["dataset"],
        "top1": result_of(provenance).get("test/top1"),
        "least_prob": least_prob,
    }
    return json.dumps(facts, sort_keys=True, allow_nan=False).replace("<", r"\u003c")


def _examples() -> dict[str, str]:
    """Return a few drawings by name, each as an address that holds its pixels."""
    with tempfile.TemporaryDirectory() as folder:
        files = {path.stem.removeprefix("drawn_"): path for path in write_drawings(Path(folder))}
        return {
            name: f"data:image/png;base64,{_base64(files[name].read_bytes())}" for name in EXAMPLES
        }


def _packed(content: bytes) -> str:
    return _base64(gzip.compress(content, mtime=0))


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
