import io

import numpy as np
import pytest
import scipy.ndimage
import torch
from matplotlib.figure import Figure
from PIL import Image

from resnet_cifar100.analysis.charts import draw_corruptions
from resnet_cifar100.analysis.corruptions import (
    CORRUPTIONS,
    SEVERITIES,
    add_noise,
    blur,
    compress_jpeg,
    lower_contrast,
)

ALL = range(1, SEVERITIES + 1)
by_name = pytest.mark.parametrize("corrupt", CORRUPTIONS.values(), ids=CORRUPTIONS)


def numbered(*values: float) -> list[tuple[int, float]]:
    """Severities with a value each."""
    return list(enumerate(values, start=1))


@pytest.fixture
def images(tiny_dataset) -> torch.Tensor:
    return tiny_dataset.test.images[::20].clone()


def is_rounded_down(actual: torch.Tensor, expected: np.ndarray) -> bool:
    """Whether uint8 values are the whole parts of `expected`, up to the last bits of float32."""
    lost = np.clip(expected, 0, 255) - actual.numpy()
    return bool((lost > -1e-3).all() and (lost < 1 + 1e-3).all())


@by_name
@pytest.mark.parametrize("severity", ALL)
def test_pictures_stay_pictures(corrupt, severity, images):
    before = images.clone()
    corrupted = corrupt(images, severity)
    assert corrupted.dtype == torch.uint8
    assert corrupted.shape == images.shape
    assert torch.equal(images, before)
    assert not torch.equal(corrupted, images)
    assert torch.equal(corrupt(images, severity), corrupted)


@by_name
def test_each_severity_is_further_from_the_picture(corrupt, images):
    distances = [
        float((corrupt(images, severity).float() - images.float()).square().mean())
        for severity in ALL
    ]
    assert distances == sorted(set(distances))
    assert distances[0] > 0


@pytest.mark.parametrize("corrupt", [blur, lower_contrast, compress_jpeg])
def test_a_picture_does_not_depend_on_those_beside_it(corrupt, images):
    together = corrupt(images, 3)
    for index in (0, 4, len(images) - 1):
        assert torch.equal(corrupt(images[index : index + 1], 3)[0], together[index])


@pytest.mark.parametrize(("severity", "sigma"), numbered(0.4, 0.6, 0.7, 0.8, 1.0))
def test_blur_is_that_of_scipy(severity, sigma, images):
    expected = scipy.ndimage.gaussian_filter(
        images.numpy().astype(np.float64), sigma=(0, 0, sigma, sigma), mode="nearest", truncate=4
    )
    assert is_rounded_down(blur(images, severity), expected)


@pytest.mark.parametrize(("severity", "share"), numbered(0.75, 0.5, 0.4, 0.3, 0.15))
def test_contrast_is_drawn_towards_the_mean_of_each_channel(severity, share, images):
    expected = np.empty(images.shape)
    for index, image in enumerate(images.numpy().astype(np.float64)):
        for channel, values in enumerate(image):
            mean = sum(values.flatten()) / values.size
            expected[index, channel] = mean + share * (values - mean)
    assert is_rounded_down(lower_contrast(images, severity), expected)


@pytest.mark.parametrize(("severity", "quality"), numbered(80, 65, 58, 50, 40))
def test_jpeg_is_that_of_pillow(severity, quality, images):
    compressed = compress_jpeg(images, severity)
    for image, ours in zip(images, compressed, strict=True):
        file = io.BytesIO()
        Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()).save(
            file, format="JPEG", quality=quality
        )
        with Image.open(file) as picture:
            assert np.array_equal(np.asarray(picture), ours.permute(1, 2, 0).numpy())


@pytest.mark.parametrize(("severity", "share"), numbered(0.04, 0.06, 0.08, 0.09, 0.1))
def test_noise_has_the_stated_deviation_everywhere(severity, share):
    grey = torch.full((40, 3, 32, 32), 128, dtype=torch.uint8)
    change = add_noise(grey, severity).double() - 128
    deviation = (255 * share) ** 2 + 1 / 12  # the second part is from rounding
    assert float(change.square().mean()) == pytest.approx(deviation + 0.25, rel=0.02)
    assert float(change.mean()) == pytest.approx(-0.5, abs=0.4)  # rounded down
    assert abs(float((change[:, 0] * change[:, 1]).mean())) < 0.02 * deviation
    assert abs(float((change[:20] * change[20:]).mean())) < 0.02 * deviation


@pytest.mark.parametrize("value", [0, 255])
def test_noise_never_turns_white_to_black(value):
    flat = torch.full((4, 3, 32, 32), value, dtype=torch.uint8)
    noisy = add_noise(flat, SEVERITIES).int()
    assert int((noisy - value).abs().max()) < 160


def test_every_corruption_is_drawn_however_many_there_are():
    figure = Figure()
    draw_corruptions(figure, {f"corruption {i}": {0: 0.9, 1: 0.5} for i in range(6)})
    assert len(figure.axes[0].get_lines()) == 6
