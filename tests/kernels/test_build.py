import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from resnet_cifar100.config import Config
from resnet_cifar100.kernels import build
from resnet_cifar100.runtime import create_runtime, kernels_fault
from tests.kernels.machine import needs_kernel
from tests.processes import surroundings

CPU = Config(device="cpu")


@pytest.fixture
def compiled(monkeypatch):
    """Return the calls of a compiler."""
    calls = []
    run = subprocess.run

    def counted(command, **options):
        calls.append(command)
        return run(command, **options)

    monkeypatch.setattr(subprocess, "run", counted)
    return calls


@needs_kernel
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_they_are_used_on_a_cpu_unless_they_are_turned_off(precision):
    config = dataclasses.replace(CPU, precision=precision)
    note = "Convolutions and norms by the kernels of this project, where they are faster."
    runtime = create_runtime(config)
    assert runtime.has_kernels
    assert note in runtime.notes
    runtime = create_runtime(dataclasses.replace(config, kernels=False))
    assert not runtime.has_kernels
    assert not any("kernels" in note for note in runtime.notes)


def test_without_a_compiler_the_library_convolves_and_a_note_says_so(fresh_kernels, monkeypatch):
    monkeypatch.setattr(build, "COMPILER", ("no-such-compiler",))
    runtime = create_runtime(CPU)
    assert not runtime.has_kernels
    (note,) = [note for note in runtime.notes if "Convolutions" in note]
    assert "no-such-compiler" in note
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    assert "no home" in " ".join(create_runtime(CPU).notes)


@needs_kernel
def test_a_processor_without_avx2_is_told_apart(fresh_kernels, monkeypatch):
    old = ("g++", "-march=x86-64", *build.COMPILER[3:])
    monkeypatch.setattr(build, "COMPILER", old)
    assert "the processor has no AVX2" in kernels_fault()
    assert list(fresh_kernels.glob("*.so")) == []


@needs_kernel
def test_it_is_compiled_once_and_anew_where_the_kept_one_is_damaged(
    fresh_kernels, compiled, monkeypatch, tmp_path
):
    for _ in range(2):
        build.load_kernels.cache_clear()
        build.load_kernels()
    assert len(compiled) == 1
    (kept,) = fresh_kernels.glob("*.so")
    damaged = tmp_path / "other" / "resnet-cifar100" / kept.name  # that no process has open
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(kept.read_bytes()[:100])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    build.load_kernels.cache_clear()
    assert build.load_kernels().lanes() in (8, 16)
    assert len(compiled) == 2
    assert damaged.read_bytes() == kept.read_bytes()


@needs_kernel
def test_a_new_compiler_compiles_anew(fresh_kernels, compiled, monkeypatch):
    for facts in ("one", "another"):
        monkeypatch.setattr(build, "_compiler_file", lambda facts=facts: facts)
        build.load_kernels.cache_clear()
        build.load_kernels()
    assert len(compiled) == 2


@needs_kernel
def test_of_processes_that_start_together_one_compiles(tmp_path):
    calls, folder = tmp_path / "calls", tmp_path / "bin"
    folder.mkdir()
    compiler = folder / "g++"
    compiler.write_text(f'#!/bin/sh\necho >> "{calls}"\nexec {shutil.which("g++")} "$@"\n')
    compiler.chmod(0o755)
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    around = surroundings(PATH=path, XDG_CACHE_HOME=str(tmp_path))
    script = "from resnet_cifar100.kernels.build import load_kernels; load_kernels()"
    started = [subprocess.Popen([sys.executable, "-c", script], env=around) for _ in range(3)]
    assert [process.wait(timeout=300) for process in started] == [0, 0, 0]
    assert calls.read_text() == "\n"


@needs_kernel
def test_where_nothing_can_be_kept_it_works_all_the_same(fresh_kernels, compiled):
    fresh_kernels.write_text("a file where the folder would be")
    for _ in range(2):
        build.load_kernels.cache_clear()
        assert build.load_kernels().lanes() in (8, 16)
    assert len(compiled) == 2
