import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from resnet_cifar100.kernels import build, pool
from tests.kernels.machine import needs_kernel

pytestmark = needs_kernel
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])


def check(shape, dtype=torch.float32, values=1000):
    """Compare with the library to the bit; few `values` make many pixels equal."""
    torch.manual_seed(0)
    x = torch.randint(-values, values + 1, shape).to(dtype) / 8
    found = []
    for pooled in (pool.max_pool, lambda maps: F.max_pool2d(maps, 2)):
        inputs = x.clone().to(memory_format=torch.channels_last).requires_grad_()
        outputs = pooled(inputs)
        torch.manual_seed(1)
        towards = torch.randn(outputs.shape).to(dtype)
        outputs.backward(towards)
        found.append((outputs.detach(), inputs.grad))
    (ours, of_ours), (theirs, of_theirs) = found
    assert ours.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(ours, theirs)
    assert torch.equal(of_ours, of_theirs)


@DTYPES
@pytest.mark.parametrize("values", [0, 1, 1000])
@pytest.mark.parametrize("size", [(2, 2), (4, 6), (7, 7), (31, 2), (5, 4), (4, 5)])
def test_it_is_the_library_s_to_the_bit_with_its_gradient(size, values, dtype):
    check((5, 32, *size), dtype, values)


@settings(max_examples=30, deadline=None)
@given(
    images=st.integers(1, 20),
    vectors=st.integers(1, 5),
    size=st.tuples(st.integers(2, 12), st.integers(2, 12)),
)
def test_any_number_of_images_and_vectors_and_any_size_will_do(images, vectors, size):
    check((images, vectors * build.load_kernels().lanes(), *size), values=2)


@pytest.mark.usefixtures("vectors")
def test_vectors_of_avx2_and_of_avx512_give_the_same():
    check((5, 48, 7, 6), values=2)
    check((5, 48, 7, 6), torch.bfloat16, values=2)


@DTYPES
def test_what_is_not_a_number_is_the_highest(dtype):
    x = torch.randn(2, 32, 4, 4).to(dtype)
    for pixel in range(4):
        x[0, pixel, pixel // 2, pixel % 2] = torch.nan
    outputs = pool.max_pool(x.requires_grad_())
    assert outputs[0, :4, 0, 0].isnan().all()
    assert outputs.isnan().sum() == 4
    outputs.sum().backward()
    assert x.grad.sum() == outputs.numel()


@pytest.mark.parametrize("threads", [2, 3, 20])
def test_any_number_of_threads_will_do(threads):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        check((3, 32, 9, 8))
    finally:
        torch.set_num_threads(before)


@DTYPES
def test_torch_finds_no_fault_in_its_operators(dtype):
    x = torch.randn(4, 16, 5, 6).to(dtype).requires_grad_()
    torch.library.opcheck(pool.max_pool, (x,))
    gradient = torch.randn(4, 16, 2, 3).to(dtype)
    torch.library.opcheck(pool.gradient_of_inputs, (x.detach(), gradient))


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((4, 16, 8, 8), torch.double),
        ((4, 12, 8, 8), torch.float),
        ((4, 16, 1, 8), torch.float),
        ((4, 16, 8, 1), torch.float),
        ((0, 16, 8, 8), torch.float),
    ],
)
def test_what_the_kernel_does_not_take_is_refused_before_memory_is_read(shape, dtype):
    x = torch.randn(shape, dtype=dtype)
    with pytest.raises(ValueError, match="no kernel"):
        pool.max_pool(x)
    for gradient in (torch.randn(4, 16, 3, 4), torch.randn(4, 16, 4, 4).bfloat16()):
        with pytest.raises(ValueError, match="do not fit"):
            pool.gradient_of_inputs(torch.randn(4, 16, 8, 8), gradient)
