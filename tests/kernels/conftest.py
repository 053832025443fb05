import os

import pytest

from resnet_cifar100.kernels import build


@pytest.fixture
def fresh_kernels(monkeypatch, tmp_path):
    """Forget the kernels of this process, and keep those of the test in a folder of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    build.load_kernels.cache_clear()
    yield tmp_path / "resnet-cifar100"
    build.load_kernels.cache_clear()


@pytest.fixture(scope="session")
def kept_kernels(tmp_path_factory):
    """Return where kernels are kept that were compiled in another way, for all tests."""
    base = tmp_path_factory.getbasetemp()
    is_worker = "PYTEST_XDIST_WORKER" in os.environ  # whose folder lies in that of the whole run
    return (base.parent if is_worker else base) / "kernels"


LANES = {"avx2": (8, "-mno-avx512f"), "avx512": (16, "-D__AVX512F__", "-U__AVX512BF16__")}


@pytest.fixture(params=LANES.values(), ids=LANES)
def vectors(request, kept_kernels, monkeypatch):
    """Use kernels with so many lanes, which the compiler emulates where there are fewer.

    They know no pairs in bf16, as the kernels do on most machines.
    """
    monkeypatch.setenv("XDG_CACHE_HOME", str(kept_kernels))
    monkeypatch.setattr(build, "COMPILER", (*build.COMPILER, *request.param[1:]))
    build.load_kernels.cache_clear()
    assert build.load_kernels().lanes() == request.param[0]
    yield
    build.load_kernels.cache_clear()
