"""The machine a run stands on: device, precision, threads, compilation, and a stamp of it all."""

import contextlib
import ctypes
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from resnet_cifar100 import __version__
from resnet_cifar100.config import Config, without_secrets
from resnet_cifar100.errors import ConfigError
from resnet_cifar100.kernels.build import load_kernels
from resnet_cifar100.parallel import highest_of_all_processes, local_device, world_size

CPU = torch.device("cpu")
CPUINFO = Path("/proc/cpuinfo")  # of Linux


@dataclass(frozen=True)
class Runtime:
    """Where and how the network runs; `notes` says in plain sentences what was decided and why."""

    device: torch.device
    autocast_dtype: torch.dtype
    is_compiled: bool
    has_kernels: bool
    notes: tuple[str, ...]

    def autocast(self) -> torch.autocast:
        """Return the context of a forward pass; in fp32 it does nothing."""
        is_mixed = self.autocast_dtype != torch.float32
        return torch.autocast(self.device.type, self.autocast_dtype, enabled=is_mixed)

    def compile(self, model: nn.Module) -> Callable[[Tensor], Tensor]:
        """Return the forward function to train with; it shares the parameters of `model`."""
        # One program a size of images: with the size as a variable, convolutions lose speed.
        return torch.compile(model, dynamic=False) if self.is_compiled else model


def create_runtime(config: Config) -> Runtime:
    """Choose the device and set the process-wide switches.

    Raises:
        ConfigError: for a device that this machine does not have.
    """
    if config.num_threads:
        torch.set_num_threads(config.num_threads)
    device = choose_device(config.device)
    if device.index is not None and device.type == "cuda":
        torch.cuda.set_device(device)
    notes = [f"Device {describe_device(device)}."]
    if world_size() > 1:
        notes.append(f"{world_size()} processes, each with its share of every batch.")
    keep_freed_memory()
    torch.set_float32_matmul_precision("high")  # TF32 on a GPU; no effect on a CPU
    torch.backends.cudnn.benchmark = True
    torch._dynamo.config.recompile_limit = 256  # one program for each size of images
    is_compiled = config.compile
    fault = compile_fault(device) if is_compiled else ""
    if highest_of_all_processes(int(bool(fault))):  # all or none: warming up takes all of them
        is_compiled = False
        where = f"here ({fault})" if fault else "in another process"
        notes.append(f"Not compiled: torch.compile does not work {where}.")
    dtype = _choose_dtype(config, device)
    fp32 = "TF32" if device.type == "cuda" else "fp32"
    notes.append(f"Precision {'bf16 autocast' if dtype == torch.bfloat16 else fp32}.")
    if is_compiled:
        notes.append("Compiled with torch.compile: the first step takes a minute or so.")
    has_kernels = config.kernels and device.type == "cpu"
    if has_kernels:
        fault = kernels_fault()
        has_kernels = not fault
        notes.append(
            f"Convolutions and norms by the library: faster kernels do not work here ({fault})."
            if fault
            else "Convolutions and norms by the kernels of this project, where they are faster."
        )
    return Runtime(device, dtype, is_compiled, has_kernels, tuple(notes))


def keep_freed_memory() -> None:
    """Let this process keep freed memory for its next tensors, where glibc manages it.

    By default each large tensor is a fresh mapping that the system fills with zeros page by page
    and takes back at once: 6 to 17% of a training step of speednet (docs/log.md).
    """
    m_trim_threshold, m_mmap_max = -1, -4
    with contextlib.suppress(OSError, AttributeError):  # no glibc here, nothing to set
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(m_mmap_max, 0)
        libc.mallopt(m_trim_threshold, -1)


def choose_device(name: str) -> torch.device:
    """Return the named device, or for auto the fastest there is; of GPUs that of this process.

    Raises:
        ConfigError: for a device that this machine does not have.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return local_device(torch.device("cuda"))
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = local_device(torch.device(name))
        torch.empty(1, device=device).item()  # which meta cannot
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(f"--device must be one that this machine has, got {name}") from error
    return device


def describe_device(device: torch.device) -> str:
    """Return the device in words: its model, and the threads in use for a CPU."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    if device.type == "cpu":
        return f"cpu ({_cpu_model()}, {torch.get_num_threads()} threads)"
    return str(device)


def environment(device: torch.device = CPU, notes: Sequence[str] = ()) -> dict[str, Any]:
    """Return what a figure is read with: versions, hardware, commit; no host, no absolute path.

    `device` is the one that was used; `notes` are those of the Runtime on it.
    """
    commit, is_dirty = _git_commit()
    return {
        "project": __version__,
        "commit": commit,
        "uncommitted_changes": is_dirty,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu_model(),
        "cpu_cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "processes": world_size(),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "runtime": list(notes),
        "command": f"python {_program()} {shlex.join(map(_without_folder, sys.argv[1:]))}".rstrip(),
    }


def _choose_dtype(config: Config, device: torch.device) -> torch.dtype:
    if config.precision == "auto":
        # One for all processes: Muon's updates follow from it, and weights must stay the same.
        lacks_bf16 = highest_of_all_processes(int(not _has_bf16(device)))
        return torch.float32 if lacks_bf16 else torch.bfloat16
    return {"fp32": torch.float32, "bf16": torch.bfloat16}[config.precision]


def _has_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bf16 matrices in hardware.

    With AMX or AVX512-BF16 a convolution in bf16 takes about half the time of fp32; without, about
    twice (docs/log.md).
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def compile_fault(device: torch.device) -> str:
    """Compile one small function; return "" if that works, else the reason in a few words."""
    try:
        torch.compile(lambda x: x * 2 + 1)(torch.ones(8, device=device))
    except Exception as error:  # whatever the backend raises, the run goes on without it
        return in_short(error)
    return ""


def kernels_fault() -> str:
    """Load the kernels of `kernels/`; return "" if that works, else the reason in a few words."""
    try:
        load_kernels()
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        return in_short(error)
    return ""


def in_short(error: Exception) -> str:
    """Return the first line of what an error says, as a record may repeat it: without paths."""
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return re.sub(r"(?<!\w)/[^\s'\":,)]+", "...", line)[:200]


def _program() -> str:
    """Return what was called: a file, or with -m a module."""
    spec = sys.modules["__main__"].__spec__
    return f"-m {spec.name.removesuffix('.__main__')}" if spec else Path(sys.argv[0]).name


def _without_folder(argument: str) -> str:
    """Return a word of a command line with nothing private in it: no folder, no secret."""
    is_flag = argument.startswith("-")
    flag, equals, value = argument.partition("=") if is_flag else ("", "", argument)
    name = Path(value).name if Path(value).is_absolute() else value
    return flag + equals + without_secrets(name)


def _cpu_model() -> str:
    """Return the name of the processor, with the numbers that tell generations of one name apart.

    A virtual machine may call two of them the same that differ twofold in speed.
    """
    try:
        lines = CPUINFO.read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    pairs = [line.split(":", 1) for line in reversed(lines) if ":" in line]
    facts = {key.strip(): value.strip() for key, value in pairs}  # of the first processor
    name = facts.get("model name", platform.machine())
    if "cpu family" not in facts:
        return name
    return f"{name}, family {facts['cpu family']} model {facts['model']}"


def _git_commit() -> tuple[str, bool]:
    """Return the commit of this source tree, and whether files differ.

    Outside git, as in a container or installed into the folder of another project, it is what the
    environment variable GIT_COMMIT says.
    """
    folder = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        run = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True
        )
        return run.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "--", Path(__file__).name)
        # What a run writes down into the tree does not change the next one.
        code = (":/", ":(top,exclude)docs", ":(top,exclude)records")
        changes = git("status", "--porcelain", "--untracked-files=no", "--", *code)
        return git("rev-parse", "HEAD"), bool(changes)
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get("GIT_COMMIT", ""), False
