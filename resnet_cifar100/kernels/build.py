"""The kernels in C++, compiled on the machine that they run on."""

import contextlib
import ctypes
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from torch import Tensor

from resnet_cifar100.errors import CheckpointError
from resnet_cifar100.storage import replace_file, sha256_of

FOLDER = Path(__file__).parent
SOURCES = [FOLDER / f"{name}.cpp" for name in ("winograd", "norm", "pool", "preprocess", "tiles")]
HEADERS = [FOLDER / f"{name}.h" for name in ("vectors", "products", "transforms", "points")]
COMPILER = (
    "g++",
    "-O3",
    "-march=native",
    "-std=c++17",
    "-fno-signed-zeros",
    "-fopenmp",
    "-shared",
    "-fPIC",
)
MOST_SECONDS = 120  # it takes seven to twelve


@cache
def load_kernels() -> ctypes.CDLL:
    """Return the compiled kernels; they are kept in the user's cache folder for the next process.

    Raises:
        OSError, RuntimeError, subprocess.SubprocessError: where they cannot be compiled, for want
            of g++ or of a processor with AVX2, or there is no home.
    """
    sources = b"".join(source.read_bytes() for source in SOURCES + HEADERS)
    key = sha256_of(sources + repr((COMPILER, _compiler_file(), _processor_flags())).encode())
    kept = _cache_folder() / f"kernels-{key[:16]}.so"
    with contextlib.suppress(OSError):  # not there yet, or damaged
        return ctypes.CDLL(str(kept))
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError, Timeout):  # nothing can be kept, or its owner is stuck
            kept.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(f"{kept}.lock", timeout=MOST_SECONDS))
            return ctypes.CDLL(str(kept))  # by another process of the run meanwhile
        return _compile(kept)


def _compile(kept: Path) -> ctypes.CDLL:
    """Compile the kernels, keep them where that can be, and return them."""
    with tempfile.TemporaryDirectory() as folder:
        built = Path(folder) / kept.name
        command = [*COMPILER, *map(str, SOURCES), "-o", str(built)]
        english = {**os.environ, "LC_ALL": "C"}
        run = subprocess.run(
            command, capture_output=True, text=True, timeout=MOST_SECONDS, env=english
        )
        if run.returncode:
            faults = [line for line in run.stderr.splitlines() if "error: " in line]
            raise OSError(faults[0].split("error: ")[-1] if faults else f"{COMPILER[0]} failed")
        with contextlib.suppress(CheckpointError, OSError):  # then it is compiled again next time
            replace_file(kept, built.read_bytes())
            return ctypes.CDLL(str(kept))
        return ctypes.CDLL(str(built))


def pointer(tensor: Tensor) -> ctypes.c_void_p:
    """Return where the values of a tensor lie."""
    return ctypes.c_void_p(tensor.data_ptr())


def in_vectors(*channels: int) -> bool:
    """Whether maps of so many channels are whole vectors of the processor."""
    lanes = load_kernels().lanes()
    return all(count % lanes == 0 for count in channels)


def takes_maps(x: Tensor) -> bool:
    """Whether the kernels know where `x` lies and its precision."""
    return x.device.type == "cpu" and x.dtype in (torch.float32, torch.bfloat16)


def _cache_folder() -> Path:
    """Return $XDG_CACHE_HOME/resnet-cifar100, by default below ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "resnet-cifar100"


def _compiler_file() -> str:
    """Return what tells one version of the compiler from another: where it lies, size and date."""
    path = shutil.which(COMPILER[0])
    if not path:
        return ""
    facts = os.stat(path)
    return f"{os.path.realpath(path)} {facts.st_size} {facts.st_mtime_ns}"


def _processor_flags() -> str:
    """Return what the processor can do, where Linux says it: a home may be shared by several."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next((line for line in lines if line.startswith("flags")), "")
    return ""
