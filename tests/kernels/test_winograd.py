import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from resnet_cifar100.kernels import build, winograd
from tests.kernels.machine import needs_kernel


def check(images, in_channels, out_channels, size, kernel, padding):
    """Compare outputs and gradients with those of the library in float64."""
    torch.manual_seed(0)
    x = torch.randn(images, in_channels, *size, requires_grad=True)
    weight = torch.randn(out_channels, in_channels, kernel, kernel, requires_grad=True)
    outputs = winograd.convolve(x, weight, padding)
    assert outputs.is_contiguous(memory_format=torch.channels_last)
    expected = F.conv2d(x.double(), weight.double(), padding=padding)
    towards = torch.randn_like(outputs)
    ours = torch.autograd.grad(outputs, (x, weight), towards)
    theirs = torch.autograd.grad(expected, (x, weight), towards.double())
    for one, other in zip((outputs, *ours), (expected, *theirs), strict=True):
        assert one.shape == other.shape
        assert (one - other).norm() < 2e-5 * other.norm()


@needs_kernel
@pytest.mark.parametrize(("kernel", "padding"), [(3, 1), (3, 0), (2, 0), (2, 1)])
@pytest.mark.parametrize("side", [3, 4, 5, 6, 7, 8, 9, 15])
def test_it_is_a_convolution_with_the_gradients_of_one(side, kernel, padding):
    check(5, 32, 64, (side, side), kernel, padding)


@needs_kernel
@settings(max_examples=30, deadline=None)
@given(
    images=st.integers(1, 70),
    channels=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    size=st.tuples(st.integers(3, 11), st.integers(3, 11)),
    kernel=st.sampled_from([2, 3]),
)
def test_any_number_of_images_and_vectors_and_any_size_will_do(images, channels, size, kernel):
    lanes = build.load_kernels().lanes()
    check(images, *(lanes * count for count in channels), size, kernel, kernel - 2)


@needs_kernel
@pytest.mark.usefixtures("vectors")
def test_vectors_of_avx2_and_of_avx512_give_the_same_sums():
    check(9, 48, 80, (8, 7), 3, 1)
    check(50, 16, 32, (6, 6), 2, 0)


@needs_kernel
def test_its_errors_are_some_ten_times_those_of_fp32():
    torch.manual_seed(0)
    x, weight = torch.randn(32, 64, 16, 16), torch.randn(64, 64, 3, 3)
    expected = F.conv2d(x.double(), weight.double(), padding=1)
    errors = [
        float((outputs - expected).norm() / expected.norm())
        for outputs in (F.conv2d(x, weight, padding=1), winograd.convolve(x, weight, 1))
    ]
    assert errors[1] < 5e-6
    assert errors[1] < 30 * errors[0]


@needs_kernel
@pytest.mark.parametrize("threads", [2, 3, 20])
@pytest.mark.parametrize("images", [3, 40])
def test_any_number_of_threads_will_do_and_gives_the_same_bits_each_time(threads, images):
    torch.manual_seed(0)
    x, gradient = torch.randn(images, 32, 9, 9), torch.randn(images, 32, 9, 9)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        check(images, 32, 32, (9, 9), 3, 1)
        check(images, 32, 32, (4, 5), 2, 0)
        first, second = (winograd.weight_gradient(x, gradient, 1, 3) for _ in range(2))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(first, second)


@needs_kernel
@pytest.mark.parametrize("kernel", [2, 3])
def test_torch_finds_no_fault_in_its_operators(kernel):
    x = torch.randn(4, 16, 8, 8, requires_grad=True)
    weight = torch.randn(32, 16, kernel, kernel, requires_grad=True)
    torch.library.opcheck(winograd.convolve, (x, weight, 1))
    gradient = torch.randn_like(winograd.convolve(x, weight, 1))
    arguments = (x.detach(), gradient.detach(), 1, kernel)
    torch.library.opcheck(winograd.weight_gradient, arguments)


@needs_kernel
@pytest.mark.parametrize(
    ("shape", "filters", "dtype"),
    [
        ((4, 16, 8, 8), (16, 16, 3, 3), torch.double),
        ((4, 16, 8, 8), (16, 16, 3, 3), torch.bfloat16),
        ((4, 16, 8, 8), (16, 32, 3, 3), torch.float),
        ((4, 16, 8, 8), (12, 16, 3, 3), torch.float),
        ((4, 12, 8, 8), (16, 12, 3, 3), torch.float),
        ((4, 16, 8, 8), (16, 16, 5, 5), torch.float),
        ((4, 16, 8, 8), (16, 16, 1, 1), torch.float),
        ((0, 16, 8, 8), (16, 16, 3, 3), torch.float),
    ],
)
def test_what_the_kernel_does_not_take_is_refused_before_memory_is_read(shape, filters, dtype):
    with pytest.raises(ValueError, match=r"do not fit|no kernel"):
        winograd.convolve(torch.randn(shape), torch.randn(filters, dtype=dtype), 1)
    side = shape[-1] + 3 - filters[-1]
    gradient = torch.randn(shape[0], filters[0], side, side, dtype=dtype)
    if filters[1] == shape[1]:
        with pytest.raises(ValueError, match="no kernel"):
            winograd.weight_gradient(torch.randn(shape), gradient, 1, filters[-1])
    with pytest.raises(ValueError, match="do not fit"):
        winograd.weight_gradient(torch.randn(5, 16, 8, 8), torch.randn(5, 16, 7, 7), 1, 3)


@needs_kernel
def test_gradients_that_nobody_asks_for_are_not_computed(monkeypatch):
    x, weight = torch.randn(4, 16, 8, 8), torch.randn(16, 16, 3, 3, requires_grad=True)
    outputs = winograd.convolve(x, weight, 1)
    monkeypatch.setattr(winograd, "convolve", None)
    outputs.sum().backward()
    assert weight.grad.isfinite().all()


@pytest.mark.parametrize(
    ("side", "kernel", "tile"),
    [
        *((3, 3, 3), (4, 3, 4), (5, 3, 3), (7, 3, 4), (9, 3, 3), (15, 3, 4), (32, 3, 4)),
        *((3, 2, 3), (4, 2, 4), (6, 2, 3), (7, 2, 4)),
    ],
)
def test_tiles_are_those_with_the_fewest_products(side, kernel, tile):
    assert winograd.best_tile(side, side, kernel) == tile


@pytest.mark.parametrize(
    ("shape", "is_faster"),
    [
        ((32, 8, 4, 4), True),
        ((31, 8, 4, 4), False),
        ((8, 8, 8, 8), True),
        ((1000, 8, 2, 2), False),
        ((1000, 8, 3, 3), True),
        ((1000, 8, 1, 32), False),
    ],
)
def test_small_maps_and_small_batches_are_the_library_s(shape, is_faster):
    assert winograd.is_faster(torch.empty(shape), 3, 1) == is_faster
    assert not winograd.is_faster(torch.empty(shape, dtype=torch.bfloat16), 3, 1)
    assert not winograd.is_faster(torch.empty(shape, device="meta"), 3, 1)
