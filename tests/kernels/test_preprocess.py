import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from resnet_cifar100.data.transforms import Preprocess
from resnet_cifar100.kernels import preprocess
from tests.kernels.machine import needs_kernel
from tests.states import begun

pytestmark = needs_kernel
LAYOUTS = [torch.contiguous_format, torch.channels_last]


def check(shape, image_size, layout=torch.channels_last):
    """Compare with the library; return what the kernel makes of the images."""
    torch.manual_seed(0)
    images = torch.randint(0, 256, shape, dtype=torch.uint8).to(memory_format=layout)
    theirs = Preprocess(image_size)
    ours = preprocess.preprocess(images, image_size, theirs.mean, theirs.std)
    assert ours.is_contiguous(memory_format=torch.channels_last)
    assert ours.dtype == torch.float32
    assert ours.shape == (shape[0], 3, image_size, image_size)
    assert torch.allclose(ours, theirs(images), rtol=0, atol=4e-6)
    return ours


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("image_size", [16, 20, 24, 31, 32, 33, 64])
def test_it_is_the_library_s_but_for_rounding(image_size, layout):
    check((5, 3, 32, 32), image_size, layout)


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(0, 5),
    sides=st.tuples(st.integers(4, 40), st.integers(4, 40)),
    image_size=st.integers(20, 50),
)
def test_any_number_of_images_and_any_size_will_do(count, sides, image_size):
    check((count, 3, *sides), image_size)


def test_it_is_as_exact_within_autocast():
    preprocess._taps.cache_clear()
    with torch.autocast("cpu", torch.bfloat16):
        check((2, 3, 32, 32), 20)


@pytest.mark.usefixtures("vectors")
@pytest.mark.parametrize("image_size", [20, 32])
def test_vectors_of_avx2_and_of_avx512_give_the_same(image_size):
    check((3, 3, 32, 32), image_size)


@pytest.mark.parametrize("threads", [1, 2, 3, 20])
def test_any_number_of_threads_gives_the_same_bits(threads):
    before, expected = torch.get_num_threads(), check((7, 3, 32, 32), 20)
    try:
        torch.set_num_threads(threads)
        assert torch.equal(check((7, 3, 32, 32), 20), expected)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("images", "image_size"),
    [
        (torch.zeros(1, 3, 32, 32), 20),  # not bytes
        (torch.zeros(1, 1, 32, 32, dtype=torch.uint8), 20),
        (torch.zeros(1, 3, 32, 32, dtype=torch.uint8), 15),  # a pixel of more than 4x4
        (torch.zeros(1, 3, 32, 41, dtype=torch.uint8), 20),
        (torch.zeros(1, 3, 3, 32, dtype=torch.uint8), 20),
        (torch.zeros(1, 3, 32, 32, dtype=torch.uint8, device="meta"), 20),
    ],
)
def test_what_it_does_not_take_is_the_library_s(images, image_size):
    module = Preprocess(32)
    with pytest.raises(ValueError, match="no kernel"):
        preprocess.preprocess(images, image_size, module.mean, module.std)
    if images.device.type == "cpu" and images.shape[1] == 3:
        expected = module(images, image_size)
        module.uses_kernel = True
        assert torch.equal(module(images, image_size), expected)


def test_a_run_uses_it_in_training_alone_and_not_without_kernels(
    speedy_config, tiny_dataset, monkeypatch
):
    state, loader = begun(speedy_config, tiny_dataset)
    images, _ = next(loader.batches(0))
    expected, marked = state.preprocess(images), torch.zeros(())
    monkeypatch.setattr(preprocess, "preprocess", lambda *_: marked)
    assert state.preprocess(images, speedy_config.image_size) is marked
    assert torch.equal(state.preprocess(images), expected)
    state.preprocess.uses_kernel = False
    assert torch.equal(state.preprocess(images, speedy_config.image_size), expected)
