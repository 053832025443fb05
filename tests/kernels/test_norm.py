import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from resnet_cifar100.kernels import build, norm
from tests.kernels.machine import needs_kernel

pytestmark = needs_kernel
EPS = 1e-5
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])


def values(shape, offset=0.5):
    """Return inputs, weight and bias as a network has them."""
    torch.manual_seed(0)
    x = torch.randn(shape) * torch.rand(shape[1])[:, None, None] * 3 + offset
    return x, torch.rand(shape[1]) + 0.5, torch.randn(shape[1])


def expected(x, weight, bias, activation, towards):
    """Return outputs, statistics and gradients in float64."""
    x, weight, bias = (tensor.double().requires_grad_() for tensor in (x, weight, bias))
    normed = F.batch_norm(x, None, None, weight, bias, training=True, eps=EPS)
    outputs = norm.ACTIVATIONS[activation](normed)
    grads = torch.autograd.grad(outputs, (x, weight, bias), towards.double())
    variance, mean = torch.var_mean(x.detach(), dim=(0, 2, 3), correction=0)
    return normed.detach(), (outputs.detach(), mean, variance, *grads)


def found(x, weight, bias, activation, towards):
    x, weight, bias = (tensor.clone().requires_grad_() for tensor in (x, weight, bias))
    outputs, mean, variance = norm.normalise(x, weight, bias, EPS, activation)
    assert outputs.is_contiguous(memory_format=torch.channels_last)
    assert outputs.dtype == x.dtype
    grads = torch.autograd.grad(outputs, (x, weight, bias), towards)
    return (outputs.detach(), mean, variance, *grads)


def check(shape, activation, dtype=torch.float32, offset=0.5):
    x, weight, bias = values(shape, offset)
    x = x.to(dtype)
    towards = torch.randn(shape).to(dtype)
    # Where the norm is as good as zero, ReLU's gradient is anyone's guess.
    normed, _ = expected(x, weight, bias, activation, towards)
    towards[normed.abs() < 1e-3] = 0
    _, theirs = expected(x, weight, bias, activation, towards)
    ours = found(x, weight, bias, activation, towards)
    sizes = [other.norm() for other in theirs]
    # The gradient of x is what the norm's mean and variance leave of that of its outputs: of two
    # pixels as good as nothing.
    outputs = norm.ACTIVATIONS[activation](normed.requires_grad_())
    (inner,) = torch.autograd.grad(outputs, normed, towards.double())
    scale = weight.double() / (theirs[2] + EPS).sqrt()
    sizes[3] = (scale.view(-1, 1, 1) * inner).norm()
    for one, other, size in zip(ours, theirs, sizes, strict=True):
        assert one.shape == other.shape
        bound = 2e-5 if one.dtype == torch.float32 else 4e-3  # rounded once to bf16
        assert (one - other).norm() <= bound * size + 1e-6


@DTYPES
@pytest.mark.parametrize("activation", norm.ACTIVATIONS)
@pytest.mark.parametrize("shape", [(5, 16, 7, 6), (300, 32, 3, 3), (2, 208, 4, 4), (9, 64, 9, 9)])
def test_it_is_a_norm_and_an_activation_with_their_gradients(shape, activation, dtype):
    check(shape, activation, dtype)


@settings(max_examples=30, deadline=None)
@given(
    images=st.integers(1, 90),
    vectors=st.integers(1, 13),
    size=st.tuples(st.integers(1, 9), st.integers(2, 9)),
    activation=st.sampled_from(list(norm.ACTIVATIONS)),
)
def test_any_number_of_pixels_and_vectors_will_do(images, vectors, size, activation):
    check((images, vectors * build.load_kernels().lanes(), *size), activation)


@pytest.mark.parametrize("activation", norm.ACTIVATIONS)
@pytest.mark.usefixtures("vectors")
def test_vectors_of_avx2_and_of_avx512_give_the_same_sums(activation):
    check((7, 80, 5, 5), activation)
    check((7, 80, 5, 5), activation, torch.bfloat16)


@DTYPES
def test_a_mean_far_from_zero_does_not_drown_the_variance(dtype):
    x, weight, bias = values((40, 32, 8, 8), offset=0)
    x = (x + 1000).to(dtype)
    _, _, variance = norm.normalise(x, weight, bias, EPS, "relu")
    own = x.double().var(dim=(0, 2, 3), correction=0)
    assert (variance - own).abs().max() < 1e-4 * own.max()


@pytest.mark.parametrize("outlier", [10.0, 1000.0])
@pytest.mark.parametrize("place", [(0, 0, 0), (39, 7, 7), (20, 3, 5)])
def test_one_pixel_far_from_all_others_does_not_drown_the_variance(place, outlier):
    x = torch.randn(40, 16, 8, 8) / 1000 + 1
    image, row, column = place
    x[image, :, row, column] = outlier
    _, mean, variance = norm.normalise(x, torch.ones(16), torch.zeros(16), EPS, "relu")
    assert torch.allclose(mean.double(), x.double().mean(dim=(0, 2, 3)), rtol=1e-5)
    own = x.double().var(dim=(0, 2, 3), correction=0)
    assert torch.allclose(variance.double(), own, rtol=3e-4)


def test_a_channel_of_one_value_has_no_variance_and_gives_its_bias():
    x = torch.full((4, 16, 3, 3), 3.1)
    weight, bias = torch.ones(16), torch.arange(16) - 8.0
    outputs, mean, variance = norm.normalise(x, weight, bias, EPS, "identity")
    assert torch.equal(variance, torch.zeros(16))
    assert torch.equal(mean, torch.full((16,), 3.1))
    assert torch.allclose(outputs, bias[:, None, None].expand_as(outputs), atol=1e-4)


@pytest.mark.parametrize("middle", [-200, -80, -10, 0, 10, 80, 200])
def test_silu_is_silu_far_from_zero_too(middle):
    points = torch.linspace(middle - 10, middle + 10, 1600).reshape(100, 16, 1, 1)
    mean, deviation = points.mean(dim=(0, 2, 3)), points.std(dim=(0, 2, 3), correction=0)
    outputs, _, _ = norm.normalise(points, deviation, mean, 0.0, "silu")
    assert torch.allclose(outputs, F.silu(points), rtol=1e-5, atol=1e-5)


@DTYPES
@pytest.mark.parametrize("activation", norm.ACTIVATIONS)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_is_not_finite_does_not_become_so(bad, activation, dtype):
    x, weight, bias = values((8, 16, 4, 4))
    x[3, 5, 2, 1] = bad
    x = x.to(dtype).requires_grad_()
    outputs, mean, variance = norm.normalise(x, weight, bias, EPS, activation)
    outputs.sum().backward()
    for tensor in (outputs[:, 5], mean[5], variance[5], x.grad[:, 5]):
        assert not tensor.isfinite().any()
    for tensor in (outputs[:, 6], mean[6], variance[6], x.grad[:, 6]):
        assert tensor.isfinite().all()


def test_the_fullest_of_what_is_not_a_number_stays_so_in_bf16():
    x, weight, bias = values((8, 16, 4, 4))
    bias[:] = torch.tensor(0x7FFFFFFF, dtype=torch.int32).view(torch.float32)
    outputs, _, _ = norm.normalise(x.bfloat16(), weight, bias, EPS, "identity")
    assert outputs.isnan().all()


def test_numbers_round_to_the_nearest_bf16_and_ties_to_even():
    x = torch.randn(500, 16, 4, 4)
    weight, bias = torch.rand(16), torch.randn(16)
    outputs, _, _ = norm.normalise(x.bfloat16(), weight, bias, EPS, "identity")
    exact, _, _ = norm.normalise(x.bfloat16().float(), weight, bias, EPS, "identity")
    assert torch.equal(outputs, exact.bfloat16())


@pytest.mark.parametrize("threads", [2, 3, 20])
def test_any_number_of_threads_will_do_and_gives_the_same_bits_each_time(threads):
    x, weight, bias = values((30, 32, 9, 9))
    towards = torch.randn_like(x)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        check((30, 32, 9, 9), "relu")
        first, second = (found(x, weight, bias, "silu", towards) for _ in range(2))
    finally:
        torch.set_num_threads(before)
    assert all(map(torch.equal, first, second))


@DTYPES
@pytest.mark.parametrize("activation", norm.ACTIVATIONS)
def test_torch_finds_no_fault_in_its_operators(activation, dtype):
    x, weight, bias = values((4, 16, 5, 5))
    x = x.to(dtype)
    inputs = [tensor.requires_grad_() for tensor in (x, weight, bias)]
    torch.library.opcheck(norm.normalise, (*inputs, EPS, activation))
    with torch.no_grad():
        _, mean, variance = norm.normalise(*inputs, EPS, activation)
        arguments = (*(tensor.detach() for tensor in inputs), mean, variance, EPS, activation)
        torch.library.opcheck(norm.gradients, (arguments[0], torch.randn_like(x), *arguments[1:]))


@pytest.mark.parametrize(
    ("shape", "channels", "dtype"),
    [
        ((4, 16, 8, 8), 16, torch.double),
        ((4, 16, 8, 8), 32, torch.float),
        ((4, 12, 8, 8), 12, torch.float),
        ((1, 16, 1, 1), 16, torch.float),
        ((0, 16, 8, 8), 16, torch.float),
        ((4, 16, 8), 16, torch.float),
    ],
)
def test_what_the_kernel_does_not_take_is_refused_before_memory_is_read(shape, channels, dtype):
    x = torch.randn(shape, dtype=dtype)
    weight, bias = torch.ones(channels), torch.zeros(channels)
    with pytest.raises((ValueError, RuntimeError), match=r"no kernel|channels_last"):
        norm.normalise(x, weight, bias, EPS, "relu")
    if x.ndim == 4:
        with pytest.raises(ValueError, match="no kernel"):
            norm.gradients(x, x, weight, bias, weight, weight, EPS, "relu")
    with pytest.raises(ValueError, match="do not fit"):
        norm.gradients(x, x[:, :1], weight, bias, weight, weight, EPS, "relu")


@pytest.mark.parametrize(
    "wrong",
    [torch.ones(1, 1), torch.ones(16, 1), torch.ones(1), torch.ones(16, dtype=torch.double)],
    ids=["1x1", "16x1", "1", "fp64"],
)
def test_weights_of_another_shape_or_precision_are_refused(wrong):
    x, right = torch.randn(4, 16, 8, 8), torch.ones(16)
    for pair in ((wrong, right), (right, wrong)):
        with pytest.raises(ValueError, match="no kernel"):
            norm.normalise(x, *pair, EPS, "relu")
        with pytest.raises(ValueError, match="no kernel"):
            norm.gradients(x, x, right, right, *pair, EPS, "relu")


def test_weights_need_not_lie_side_by_side():
    x, weight, bias = values((4, 16, 8, 8))
    apart = torch.stack([weight, bias], dim=1)
    found = norm.normalise(x, apart[:, 0], apart[:, 1], EPS, "relu")
    assert all(map(torch.equal, found, norm.normalise(x, weight, bias, EPS, "relu")))
