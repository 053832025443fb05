import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from resnet_cifar100.constants import MEAN, STD
from resnet_cifar100.data.transforms import Crops, Preprocess
from tests.reference import crop_and_flip


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 5),
    st.one_of(
        st.tuples(st.just("zeros"), st.integers(0, 6)),
        st.tuples(st.just("reflect"), st.integers(0, 3)),  # less than a side
    ),
    st.sampled_from([(4, 4), (8, 5), (5, 9)]),
    st.integers(0, 99),
)
def test_a_batch_is_cropped_and_flipped_as_image_by_image(count, fill_and_padding, size, seed):
    fill, padding = fill_and_padding
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (9, 3, *size), generator=generator, dtype=torch.uint8)
    chosen = torch.randint(0, 9, (count,), generator=generator)
    offsets = torch.randint(0, 2 * padding + 1, (count, 2), generator=generator)
    flips = torch.rand(count, generator=generator) < 0.5
    crops = Crops(images, padding, fill)
    batch = crops.cut(chosen, offsets, flips)
    crops.has_views = False  # as on devices without them
    assert torch.equal(crops.cut(chosen, offsets, flips), batch)
    assert batch.dtype == torch.uint8
    assert batch.shape == (count, 3, *size)
    assert batch.is_contiguous(memory_format=torch.channels_last)
    for index in range(count):
        expected = crop_and_flip(
            images[chosen[index]].numpy(),
            top=int(offsets[index, 0]),
            left=int(offsets[index, 1]),
            flip=bool(flips[index]),
            padding=padding,
            fill=fill,
        )
        assert np.array_equal(batch[index].numpy(), expected)


@pytest.mark.parametrize("fill", ["zeros", "reflect"])
def test_the_middle_crop_without_flip_changes_nothing(fill):
    images = torch.randint(0, 256, (7, 3, 32, 32), dtype=torch.uint8)
    middle, flips = torch.full((7, 2), 16), torch.zeros(7, dtype=torch.bool)
    assert torch.equal(Crops(images, 16, fill).cut(torch.arange(7), middle, flips), images)


def test_preprocessing_normalises_each_channel():
    image = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    image[0, 1] = 255
    pixels = Preprocess(32)(image)
    expected = torch.tensor([-MEAN[0] / STD[0], (1 - MEAN[1]) / STD[1], -MEAN[2] / STD[2]])
    assert torch.allclose(pixels[0, :, 5, 7], expected, atol=1e-5)
    assert pixels.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("size", [8, 20, 32])
def test_another_size_may_stand_in_for_that_of_the_network(size):
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    pixels = Preprocess(24)(images, size)
    assert pixels.shape == (2, 3, size, size)
    assert torch.equal(pixels, Preprocess(size)(images))


@pytest.mark.parametrize("size", [16, 20, 24])
def test_resizing_agrees_with_pillow(size):
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    smooth = Image.fromarray(small).resize((32, 32), Image.Resampling.BICUBIC)
    pixels = torch.from_numpy(np.array(smooth)).permute(2, 0, 1)[None]
    plain = Preprocess(size, mean=(0, 0, 0), std=(1, 1, 1))
    ours = 255 * plain(pixels)[0].permute(1, 2, 0).numpy()
    theirs = np.asarray(smooth.resize((size, size), Image.Resampling.BILINEAR), dtype=np.float32)
    assert np.abs(ours - theirs).max() <= 1.0  # Pillow rounds to whole numbers, twice


def test_the_mean_and_deviation_are_those_of_the_training_images(real_dataset):
    levels = torch.arange(256).double() / 255
    for channel in range(3):
        pixels = real_dataset.train.images[:, channel].numpy().ravel()
        shares = torch.from_numpy(np.bincount(pixels, minlength=256)).double() / len(pixels)
        mean = float(shares @ levels)
        assert mean == pytest.approx(MEAN[channel], abs=1e-4)
        deviation = float(shares @ (levels - mean) ** 2) ** 0.5
        assert deviation == pytest.approx(STD[channel], abs=1e-4)
