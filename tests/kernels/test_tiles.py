from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from resnet_cifar100.config import ModelConfig
from resnet_cifar100.kernels import build, tiles
from resnet_cifar100.models.factory import create_model
from resnet_cifar100.models.layers import use_kernels
from tests.kernels.machine import needs_kernel

pytestmark = needs_kernel
EMULATED = Path(__file__).parent / "emulated_tiles.h"


@pytest.fixture(scope="module", params=["processor", "emulated"])
def has_tiles(request, kept_kernels):
    """Let the kernels use the tiles of the processor, or those of `EMULATED`."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "emulated":
            patch.setenv("XDG_CACHE_HOME", str(kept_kernels))
            patch.setattr(build, "COMPILER", (*build.COMPILER, "-include", str(EMULATED)))
            build.load_kernels.cache_clear()
        if not build.load_kernels().has_tiles():
            pytest.skip("a processor with matrix tiles is needed")
        yield
    build.load_kernels.cache_clear()


def check(images, in_channels, out_channels, size, kernel, padding):
    """Compare the gradient of filters with that of the library in float64."""
    torch.manual_seed(0)
    x = torch.randn(images, in_channels, *size).bfloat16()
    weight = torch.zeros(out_channels, in_channels, kernel, kernel, dtype=torch.double)
    outputs = F.conv2d(x.double(), weight.requires_grad_(), padding=padding)
    towards = torch.randn_like(outputs).bfloat16()
    (expected,) = torch.autograd.grad(outputs, weight, towards.double())
    found = tiles.weight_gradient(x, towards, padding, kernel)
    assert found.shape == expected.shape
    assert found.dtype == torch.float32
    assert (found - expected).norm() < 1e-5 * expected.norm()


@pytest.mark.parametrize(("kernel", "padding"), [(3, 1), (3, 0), (3, 2), (2, 0), (2, 1), (1, 0)])
@pytest.mark.parametrize("side", [3, 4, 7, 16])
@pytest.mark.usefixtures("has_tiles")
def test_it_is_the_gradient_of_a_convolution_in_bf16(side, kernel, padding):
    check(9, 64, 32, (side, side), kernel, padding)


@pytest.mark.usefixtures("has_tiles")
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    images=st.integers(1, 40),
    channels=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    size=st.tuples(st.integers(3, 11), st.integers(3, 40)),
    kernel=st.sampled_from([2, 3]),
)
def test_any_number_of_images_and_channels_and_any_size_will_do(images, channels, size, kernel):
    check(images, *(tiles.SIDE * count for count in channels), size, kernel, kernel - 2)


@pytest.mark.parametrize("threads", [2, 3, 20])
@pytest.mark.usefixtures("has_tiles")
def test_any_number_of_threads_will_do_and_gives_the_same_bits_each_time(threads):
    torch.manual_seed(0)
    x, gradient = (torch.randn(30, 64, 9, 9).bfloat16() for _ in range(2))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        check(30, 64, 64, (9, 9), 3, 1)
        first, second = (tiles.weight_gradient(x, gradient, 1, 3) for _ in range(2))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(first, second)


@pytest.mark.usefixtures("has_tiles")
def test_outputs_and_the_gradient_of_inputs_are_those_of_the_library_under_autocast():
    torch.manual_seed(0)
    x = torch.randn(20, 64, 8, 8).to(memory_format=torch.channels_last).bfloat16()
    weight = torch.randn(32, 64, 3, 3).to(memory_format=torch.channels_last)
    found = []
    for convolve in (tiles.convolve, lambda x, w, p: F.conv2d(x, w, padding=p)):
        inputs, filters = x.clone().requires_grad_(), weight.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            outputs = convolve(inputs, filters, 1)
        outputs.float().square().sum().backward()
        found.append((outputs.detach(), inputs.grad, filters.grad))
    (y, of_x, of_weight), (lib_y, lib_of_x, lib_of_weight) = found
    assert torch.equal(y, lib_y)
    assert torch.equal(of_x, lib_of_x)
    assert (of_weight - lib_of_weight).norm() < 5e-3 * lib_of_weight.norm()  # theirs is bf16


@pytest.mark.usefixtures("has_tiles")
def test_torch_finds_no_fault_in_its_operators():
    x = torch.randn(8, 64, 6, 6).bfloat16().requires_grad_()
    weight = torch.randn(32, 64, 3, 3, requires_grad=True)
    torch.library.opcheck(tiles.convolve, (x, weight, 1))
    gradient = torch.randn(8, 32, 6, 6).bfloat16()
    torch.library.opcheck(tiles.weight_gradient, (x.detach(), gradient, 1, 3))


@pytest.mark.usefixtures("has_tiles")
@pytest.mark.parametrize(
    ("shape", "of_outputs", "dtype"),
    [
        ((4, 32, 8, 8), (4, 32, 8, 8), torch.float),
        ((4, 48, 8, 8), (4, 32, 8, 8), torch.bfloat16),
        ((4, 32, 8, 8), (4, 16, 8, 8), torch.bfloat16),
        ((4, 32, 8, 8), (4, 32, 7, 8), torch.bfloat16),
        ((4, 32, 8, 8), (5, 32, 8, 8), torch.bfloat16),
        ((0, 32, 8, 8), (0, 32, 8, 8), torch.bfloat16),
    ],
)
def test_what_the_kernel_does_not_take_is_refused_before_memory_is_read(shape, of_outputs, dtype):
    x, gradient = torch.randn(shape, dtype=dtype), torch.randn(of_outputs, dtype=dtype)
    with pytest.raises(ValueError, match=r"do not fit|no kernel"):
        tiles.weight_gradient(x, gradient, 1, 3)


@pytest.mark.usefixtures("has_tiles")
def test_a_network_trains_with_them_as_with_the_library_s():
    config = ModelConfig(name="resnet8x4_s2", image_size=32)
    gradients, names = [], []
    for has_kernels in (True, False):
        torch.manual_seed(0)
        model = create_model(config).train()
        if has_kernels:
            use_kernels(model, torch.bfloat16)
        images = torch.randn(64, 3, 32, 32).to(memory_format=torch.channels_last)
        with torch.profiler.profile() as profiler, torch.autocast("cpu", torch.bfloat16):
            model(images).float().square().sum().backward()
        names.append({event.key for event in profiler.key_averages()})
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert ["resnet_cifar100::tiles_weight_gradient" in seen for seen in names] == [True, False]
    assert (gradients[0] - gradients[1]).norm() < 0.1 * gradients[1].norm()


@pytest.mark.usefixtures("has_tiles")
def test_few_channels_and_few_pixels_are_the_library_s():
    assert tiles.takes_channels(64, 32)
    assert not tiles.takes_channels(32, 64)
    assert not tiles.takes_channels(64, 48)
    assert tiles.is_faster(torch.empty(16, 64, 8, 8, dtype=torch.bfloat16))
    assert not tiles.is_faster(torch.empty(15, 64, 8, 8, dtype=torch.bfloat16))
    assert not tiles.is_faster(torch.empty(16, 64, 8, 8))


def test_without_tiles_the_library_convolves(monkeypatch):
    class Kernels:
        has_tiles = staticmethod(lambda: 0)

    monkeypatch.setattr(tiles, "load_kernels", Kernels)
    assert not tiles.takes_channels(64, 64)
    maps = torch.randn(4, 64, 8, 8).bfloat16()
    with pytest.raises(ValueError, match="no matrix tiles"):
        tiles.weight_gradient(maps, maps, 1, 3)
