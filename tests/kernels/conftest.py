import pytest

from resnet_cifar100.kernels import build


@pytest.fixture
def fresh_kernels(monkeypatch, tmp_path):
    """Forget the kernels of this process, and keep those of the test in a folder of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    build.load_kernels.cache_clear()
    yield tmp_path / "resnet-cifar100"
    build.load_kernels.cache_clear()
