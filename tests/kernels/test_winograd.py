from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from resnet_cifar100.kernels import winograd
from tests.kernels.machine import needs_kernel

# Of the whole tensor, and of each of its values against their standard deviation.
BOUNDS = {torch.float32: (1e-5, 1e-4), torch.bfloat16: (0.02, 0.2)}
in_both_precisions = pytest.mark.parametrize("dtype", BOUNDS, ids=["fp32", "bf16"])


def check(dtype, images, in_channels, out_channels, size, kernel, padding):
    """Compare outputs and gradients with those of the library in float64."""
    torch.manual_seed(0)
    x = torch.randn(images, in_channels, *size, dtype=dtype, requires_grad=True)
    weight = torch.randn(out_channels, in_channels, kernel, kernel, requires_grad=True)
    outputs = winograd.convolve(x, weight, padding)
    assert outputs.is_contiguous(memory_format=torch.channels_last)
    assert outputs.dtype == dtype
    expected = F.conv2d(x.double(), weight.double(), padding=padding)
    towards = torch.randn_like(outputs)
    ours = torch.autograd.grad(outputs, (x, weight), towards)
    theirs = torch.autograd.grad(expected, (x, weight), towards.double())
    of_all, of_one = BOUNDS[dtype]
    for one, other in zip((outputs, *ours), (expected, *theirs), strict=True):
        assert one.shape == other.shape
        assert (one - other).norm() < of_all * other.norm()
        assert (one - other).abs().max() < of_one * other.std()


@needs_kernel
@in_both_precisions
@pytest.mark.parametrize(("kernel", "padding"), [(3, 1), (3, 0), (2, 0), (2, 1)])
@pytest.mark.parametrize("side", [3, 4, 5, 6, 7, 8, 9, 15])
def test_it_is_a_convolution_with_the_gradients_of_one(side, kernel, padding, dtype):
    check(dtype, 5, 32, 64, (side, side), kernel, padding)


@needs_kernel
@settings(max_examples=40, deadline=None)
@given(
    dtype=st.sampled_from(list(BOUNDS)),
    images=st.integers(1, 70),
    channels=st.tuples(st.integers(1, 14), st.integers(1, 14)),
    size=st.tuples(st.integers(3, 11), st.integers(3, 11)),
    kernel=st.sampled_from([2, 3]),
)
def test_any_number_of_images_and_eights_of_channels_and_any_size_will_do(
    dtype, images, channels, size, kernel
):
    check(dtype, images, *(8 * count for count in channels), size, kernel, kernel - 2)


@needs_kernel
@in_both_precisions
@pytest.mark.parametrize("images", [1, 48, 49, 100])
def test_threads_share_the_sums_of_large_filters(images, dtype):
    check(dtype, images, 72, 160, (8, 8), 3, 1)  # four tiles an image; 192 are taken at a time
    check(dtype, images, 160, 72, (12, 10), 3, 1)  # nine


@needs_kernel
@in_both_precisions
@pytest.mark.usefixtures("vectors")
def test_vectors_of_avx2_and_of_avx512_give_the_same_sums(dtype):
    check(dtype, 9, 48, 80, (8, 7), 3, 1)
    check(dtype, 50, 24, 40, (6, 6), 2, 0)
    check(dtype, 100, 64, 200, (8, 8), 3, 1)


@needs_kernel
@in_both_precisions
def test_its_errors_are_small(dtype):
    torch.manual_seed(0)
    x, weight = torch.randn(32, 64, 16, 16, dtype=dtype), torch.randn(64, 64, 3, 3)
    expected = F.conv2d(x.double(), weight.double(), padding=1)
    library = F.conv2d(x, weight.to(dtype), padding=1)
    errors = [
        float((outputs - expected).norm() / expected.norm())
        for outputs in (library, winograd.convolve(x, weight, 1))
    ]
    if dtype == torch.float32:
        assert errors[1] < 1.5e-6
        assert errors[1] < 30 * errors[0]
    else:
        assert errors[1] < 8 * errors[0]


@needs_kernel
@pytest.mark.usefixtures("vectors")
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_a_number_stays_so_in_bf16(value):
    x = torch.zeros(4, 16, 8, 8, dtype=torch.bfloat16)
    x[1, 3, 4, 4] = value
    weight = torch.randn(32, 16, 3, 3)
    outputs = winograd.convolve(x, weight, 1)
    assert not outputs[1, :, 3:6, 3:6].isfinite().any()
    assert outputs[0].isfinite().all()
    filters = winograd.weight_gradient(x, torch.ones_like(outputs), 1, 3)
    assert not filters[:, 3].isfinite().any()


@needs_kernel
@in_both_precisions
@pytest.mark.parametrize("threads", [1, 2, 3, 20])
@pytest.mark.parametrize("images", [3, 40])
def test_any_number_of_threads_will_do_and_gives_the_same_bits_each_time(threads, images, dtype):
    torch.manual_seed(0)
    x, gradient = torch.randn(2, images, 128, 9, 9, dtype=dtype)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        check(dtype, images, 32, 32, (9, 9), 3, 1)
        check(dtype, images, 32, 32, (4, 5), 2, 0)
        check(dtype, images, 128, 136, (4, 5), 3, 1)
        for channels in (32, 128):  # with sums of each thread's own, and of all together
            sides = (x[:, :channels], gradient[:, :channels], 1, 3)
            assert torch.equal(*(winograd.weight_gradient(*sides) for _ in range(2)))
    finally:
        torch.set_num_threads(before)


@needs_kernel
@in_both_precisions
@pytest.mark.parametrize("kernel", [2, 3])
def test_torch_finds_no_fault_in_its_operators(kernel, dtype):
    x = torch.randn(4, 16, 8, 8, dtype=dtype, requires_grad=True)
    weight = torch.randn(32, 16, kernel, kernel, requires_grad=True)
    torch.library.opcheck(winograd.convolve, (x, weight, 1))
    gradient = torch.randn_like(winograd.convolve(x, weight, 1))
    arguments = (x.detach(), gradient.detach(), 1, kernel)
    torch.library.opcheck(winograd.weight_gradient, arguments)
    torch.library.opcheck(winograd.input_gradient, (gradient.detach(), weight.detach(), 1))


@needs_kernel
@pytest.mark.parametrize(
    ("shape", "filters", "dtype"),
    [
        ((4, 16, 8, 8), (16, 16, 3, 3), torch.double),
        ((4, 16, 8, 8), (16, 16, 3, 3), torch.half),
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
    monkeypatch.setattr(winograd, "input_gradient", None)
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
    for dtype in BOUNDS:
        assert winograd.is_faster(torch.empty(shape, dtype=dtype), 3, 1) == is_faster
    assert not winograd.is_faster(torch.empty(shape, dtype=torch.double), 3, 1)
    assert not winograd.is_faster(torch.empty(shape, device="meta"), 3, 1)


@pytest.mark.parametrize(
    ("dtype", "has_pairs", "has_tiles", "takes"),
    [
        (torch.float32, False, False, True),
        (torch.float32, False, True, True),
        (torch.bfloat16, False, False, False),
        (torch.bfloat16, True, False, True),
        (torch.bfloat16, True, True, False),
    ],
)
def test_in_bf16_it_is_for_processors_with_pairs_and_without_tiles(
    dtype, has_pairs, has_tiles, takes, monkeypatch
):
    answers = {"has_pairs": has_pairs, "has_tiles": has_tiles}
    functions = {name: lambda answer=answer: answer for name, answer in answers.items()}
    monkeypatch.setattr(winograd, "load_kernels", lambda: SimpleNamespace(**functions))
    monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda: False)
    assert winograd.takes_channels(24, 64, dtype) == takes
    assert not winograd.takes_channels(20, 64, dtype)
    assert not winograd.takes_channels(64, 20, dtype)
    assert not winograd.takes_channels(64, 8, dtype)
    # With tiles that the compiler of the kernels does not know.
    monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda: True)
    assert winograd.takes_channels(24, 64, dtype) == (dtype == torch.float32)
