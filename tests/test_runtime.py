import ctypes
import dataclasses
import json
import os
import platform
import shlex
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
import torch

from resnet_cifar100 import runtime
from resnet_cifar100.config import Config
from resnet_cifar100.errors import ConfigError
from resnet_cifar100.runtime import choose_device, create_runtime, environment

CPU = Config(device="cpu")


def test_a_machine_without_a_compiler_trains_anyway_and_is_told_so(monkeypatch):
    def no_compiler(_function):
        raise RuntimeError("no C++ compiler found in '/home/alice', /home/alice/bin\nand a trace")

    monkeypatch.setattr(torch, "compile", no_compiler)
    runtime = create_runtime(dataclasses.replace(CPU, compile=True))
    assert not runtime.is_compiled
    (note,) = [note for note in runtime.notes if "compile" in note]
    assert "no C++ compiler found" in note
    assert "trace" not in note
    assert "alice" not in note  # for records are published
    model = torch.nn.Identity()
    assert runtime.compile(model) is model


@pytest.mark.parametrize(
    ("avx512", "amx", "dtype"),
    [
        (False, False, torch.float32),
        (True, False, torch.bfloat16),
        (False, True, torch.bfloat16),
        (True, True, torch.bfloat16),
    ],
)
def test_a_cpu_trains_in_bf16_where_it_multiplies_that_in_hardware(avx512, amx, dtype, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert create_runtime(CPU).autocast_dtype == dtype
    for name, asked in [("fp32", torch.float32), ("bf16", torch.bfloat16)]:
        assert create_runtime(dataclasses.replace(CPU, precision=name)).autocast_dtype == asked


def test_bf16_holds_for_the_forward_pass():
    with create_runtime(dataclasses.replace(CPU, precision="bf16")).autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16


@pytest.mark.parametrize("name", ["tpu", "meta", "cuda:99", "", "cpu:x"])
def test_a_device_that_is_not_there_is_refused(name):
    with pytest.raises(ConfigError, match="--device"):
        choose_device(name)


def test_each_process_has_a_gpu_of_its_own_or_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("WORLD_SIZE", "3")
    for index in (0, 1):
        monkeypatch.setenv("LOCAL_RANK", str(index))
        assert choose_device("auto") == torch.device("cuda", index)
    monkeypatch.setenv("LOCAL_RANK", "2")
    for name in ("auto", "cuda"):
        with pytest.raises(ConfigError, match="--nproc-per-node must be at most 2"):
            choose_device(name)


@pytest.mark.parametrize("fault", [OSError, AttributeError])
def test_a_machine_without_glibc_frees_memory_as_it_does(fault, monkeypatch):
    asked = []

    def no_library(name):
        asked.append(name)
        raise fault

    monkeypatch.setattr(ctypes, "CDLL", no_library)
    runtime.keep_freed_memory()
    assert asked


def test_the_stamp_of_the_environment_names_no_folder(monkeypatch):
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    monkeypatch.setattr("sys.argv", ["/home/somebody/project/train.py", "--lr", "0.1"])
    monkeypatch.setattr(runtime, "CPUINFO", Path("/nowhere"))  # a processor "w/ graphics"
    stamp = environment()
    assert stamp["command"] == "python train.py --lr 0.1"
    assert "/" not in json.dumps(stamp).replace("n/a", "")
    assert stamp["torch"] == str(torch.__version__)


def test_the_command_in_the_stamp_can_be_given_again(monkeypatch):
    words = ["train.py", "--log-file", "my logs.md", "--data-dir", "$HOME"]
    monkeypatch.setattr("sys.argv", words)
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    assert shlex.split(environment()["command"]) == ["python", *words]


@pytest.mark.parametrize("module", ["benchmarks.suite", "resnet_cifar100"])
def test_the_command_of_a_module_names_the_module(module, monkeypatch):
    name = module if "." in module else f"{module}.__main__"
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", ModuleSpec(name, None))
    monkeypatch.setattr("sys.argv", ["/home/somebody/suite.py", "--out", "x"])
    assert environment()["command"] == f"python -m {module} --out x"


def test_a_gpu_that_was_not_used_is_not_in_the_stamp(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU {device.index}")
    assert environment()["gpu"] is None
    assert environment(torch.device("cuda", 1))["gpu"] == "GPU 1"


X86 = """processor : 0
cpu family	: 25
model		: 17
model name	: AMD EPYC
flags : a : b

processor : 1
cpu family	: 26
model		: 2
model name	: other
"""


@pytest.mark.parametrize(
    ("cpuinfo", "name"),
    [
        (X86, "AMD EPYC, family 25 model 17"),
        ("processor	: 0\nCPU architecture: 8\n", "a machine"),
        (None, "a processor"),
    ],
)
def test_processors_of_one_name_are_told_apart_by_their_generation(
    cpuinfo, name, tmp_path, monkeypatch
):
    path = tmp_path / "cpuinfo"
    if cpuinfo:
        path.write_text(cpuinfo)
    monkeypatch.setattr(runtime, "CPUINFO", path)
    monkeypatch.setattr(platform, "machine", lambda: "a machine")
    monkeypatch.setattr(platform, "processor", lambda: "a processor")
    assert environment()["cpu"] == name


def test_outside_git_the_environment_names_the_commit(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("GIT_COMMIT", "abc123")
    assert environment()["commit"] == "abc123"
    monkeypatch.delenv("GIT_COMMIT")
    assert environment()["commit"] == ""


@pytest.fixture
def commit_all(monkeypatch, tmp_path):
    """A function that makes a repository of `tmp_path`, whatever the user's git is told to do."""
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(name, os.devnull)

    def commit() -> None:
        git = ["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a@b"]
        for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "theirs"]):
            subprocess.run([*git, *words], check=True)

    return commit


def test_changed_code_is_stamped_and_what_a_run_writes_down_is_not(
    commit_all, monkeypatch, tmp_path
):
    code = tmp_path / "package" / "runtime.py"
    notes = [tmp_path / "docs" / "log.md", tmp_path / "records" / "run.json"]
    for path in (code, *notes):
        path.parent.mkdir(parents=True)
        path.write_text("old")
    commit_all()
    monkeypatch.setattr(runtime, "__file__", str(code))
    for path in notes:
        path.write_text("new")
    assert environment()["uncommitted_changes"] is False
    code.write_text("new")
    assert environment()["uncommitted_changes"] is True


def test_the_commit_is_not_that_of_a_repository_around_an_installed_package(
    commit_all, monkeypatch, tmp_path
):
    (tmp_path / "theirs.py").touch()
    commit_all()
    installed = tmp_path / "site-packages" / "runtime.py"
    installed.parent.mkdir()
    installed.touch()
    monkeypatch.setattr(runtime, "__file__", str(installed))
    monkeypatch.setenv("GIT_COMMIT", "ours")
    assert environment()["commit"] == "ours"


@pytest.mark.parametrize(
    ("precision", "others_lack_it", "dtype"),
    [
        ("auto", 0, torch.bfloat16),
        ("auto", 1, torch.float32),
        ("bf16", 1, torch.bfloat16),
    ],
)
def test_a_process_takes_the_precision_that_all_have(precision, others_lack_it, dtype, monkeypatch):
    monkeypatch.setattr(runtime, "_has_bf16", lambda _: True)
    monkeypatch.setattr(runtime, "highest_of_all_processes", lambda own: max(own, others_lack_it))
    config = Config(device="cpu", kernels=False, precision=precision)
    assert create_runtime(config).autocast_dtype == dtype
