from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from resnet_cifar100.data import operations
from resnet_cifar100.data.operations import OPERATIONS
from tests.data.batches import seeded
from tests.reference import by_pillow

LEVELS = torch.arange(-30, 31) / 30
AMOUNTS: dict[str, Callable[[Tensor], Tensor]] = {  # what magnitude -1 to 1 means to Pillow
    **dict.fromkeys(("identity", "autocontrast", "equalize"), lambda m: m),
    "rotate": lambda m: 30 * m,
    "solarize": lambda m: 256 * (1 - m.abs()),
    "posterize": lambda m: 8 - (4 * m.abs()).floor(),
    **dict.fromkeys(("color", "contrast", "brightness", "sharpness"), lambda m: 1 + 0.9 * m),
    **dict.fromkeys(("shear_x", "shear_y"), lambda m: 0.3 * m),
    **dict.fromkeys(("translate_x", "translate_y"), lambda m: 10 * m),
}
everything = pytest.mark.parametrize("name", AMOUNTS)
sizes = pytest.mark.parametrize(("height", "width"), [(8, 8), (20, 32), (32, 32)])


def pictures(height: int, width: int) -> Tensor:
    """Noise, smooth gradients of few values, one pixel in a plain, and single colours."""
    generator = seeded(height * width)
    shape = (3, height, width)
    noise = torch.randint(0, 256, (2, *shape), generator=generator)
    dark = torch.randint(40, 90, (1, *shape), generator=generator)
    y, x = torch.arange(height)[:, None], torch.arange(width)
    across, down = (x * 6 // width * 31).expand(shape), (y * 5 // height * 50 + 7).expand(shape)
    diagonal = 2 * (x + y) + torch.tensor([0, 60, 120]).view(3, 1, 1)
    colours = torch.tensor([[0] * 3, [255] * 3, [3, 130, 254]])[:, :, None, None]
    spot = torch.full(shape, 200)
    spot[:, 3, 5] = torch.tensor([10, 201, 255])
    smooth = torch.stack([across, down, diagonal, spot])
    return torch.cat([noise, dark, smooth, colours.expand(3, *shape)]).to(torch.uint8)


def assert_as_pillow(name: str, result: Tensor, images: Tensor, amounts: Tensor) -> None:
    assert result.dtype == torch.uint8
    assert result.shape == images.shape
    expected = np.stack(
        [
            by_pillow(name, image, float(amount))
            for image, amount in zip(images.numpy(), amounts, strict=True)
        ]
    )
    off = np.abs(result.numpy().astype(int) - expected)
    if name == "autocontrast":  # there Pillow truncates a float that may be just below the number
        assert off.max() <= 1
        assert off.mean() < 0.05
    else:
        assert off.max() == 0, f"{name} differs with {amounts[off.max(axis=(1, 2, 3)) > 0]}"


def each_with_each(images: Tensor, amounts: Tensor) -> tuple[Tensor, Tensor]:
    return images.repeat(len(amounts), 1, 1, 1), amounts.repeat_interleave(len(images))


def test_the_operations_are_those_of_trivial_augment() -> None:
    assert set(OPERATIONS) == set(AMOUNTS)
    assert len(OPERATIONS) == 14


@sizes
@everything
def test_every_level_is_as_in_pillow(name: str, height: int, width: int) -> None:
    images, magnitudes = each_with_each(pictures(height, width)[:1], LEVELS)
    result = OPERATIONS[name](images, magnitudes)
    assert_as_pillow(name, result, images, AMOUNTS[name](magnitudes))


@sizes
@everything
def test_every_picture_is_changed_as_in_pillow(name: str, height: int, width: int) -> None:
    images, magnitudes = each_with_each(pictures(height, width), torch.tensor([-0.9, -0.2, 0.6]))
    result = OPERATIONS[name](images, magnitudes)
    assert_as_pillow(name, result, images, AMOUNTS[name](magnitudes))


@pytest.mark.parametrize(
    ("name", "highest", "lowest"),
    [
        ("rotate", 30, -30),
        ("solarize", 0, 0),
        ("posterize", 4, 4),
        *((name, 1.9, 0.1) for name in ("color", "contrast", "brightness", "sharpness")),
        *((name, 0.3, -0.3) for name in ("shear_x", "shear_y")),
        *((name, 10, -10) for name in ("translate_x", "translate_y")),
    ],
)
def test_the_strongest_magnitudes_are_the_ends_of_the_range(
    name: str, highest: float, lowest: float
) -> None:
    images = pictures(32, 32)
    for magnitude, amount in ((1, highest), (-1, lowest)):
        result = OPERATIONS[name](images, torch.full((len(images),), magnitude).float())
        assert_as_pillow(name, result, images, torch.full((len(images),), amount).double())


@everything
def test_magnitude_zero_changes_nothing_that_has_a_magnitude(name: str) -> None:
    images = pictures(20, 32)
    result = OPERATIONS[name](images, torch.zeros(len(images)))
    assert torch.equal(result, images) == (name not in {"autocontrast", "equalize"})


@sizes
@pytest.mark.parametrize("name", ["color", "contrast", "brightness", "sharpness"])
def test_any_factor_blends_as_in_pillow(name: str, height: int, width: int) -> None:
    factors = torch.cat([torch.tensor([0, 0.5, 1, 2, 3]), 2 * torch.rand(8, generator=seeded(1))])
    images, factors = each_with_each(pictures(height, width), factors)
    assert_as_pillow(name, getattr(operations, name)(images, factors), images, factors)


@sizes
def test_any_angle_turns_as_in_pillow(height: int, width: int) -> None:
    right = torch.arange(-360, 361, 45)
    angles = torch.cat([right, 720 * torch.rand(150, generator=seeded(2)).double() - 360])
    images, angles = each_with_each(pictures(height, width)[:1], angles)
    assert_as_pillow("rotate", operations.rotate(images, angles), images, angles)


@sizes
def test_any_matrix_moves_pixels_as_in_pillow(height: int, width: int) -> None:
    images = pictures(height, width)[:1].repeat(300, 1, 1, 1)
    matrices = torch.randn(300, 6, generator=seeded(3), dtype=torch.float64)
    matrices[:, [2, 5]] *= 10
    matrices[150:] = (10 * matrices[150:]).round() / 10  # so that pixels lie on borders
    result = operations.affine(images, matrices)
    for image, matrix, ours in zip(images.numpy(), matrices.tolist(), result.numpy(), strict=True):
        assert np.array_equal(ours, by_pillow("affine", image, matrix))


def test_every_threshold_solarizes_as_in_pillow() -> None:
    images, thresholds = each_with_each(pictures(8, 8)[:1], torch.arange(257))
    result = operations.solarize(images, thresholds)
    assert_as_pillow("solarize", result, images, thresholds)


def test_every_number_of_bits_posterizes_as_in_pillow() -> None:
    images, bits = each_with_each(pictures(8, 8), torch.arange(1, 9))
    assert_as_pillow("posterize", operations.posterize(images, bits), images, bits)


@pytest.mark.parametrize("name", ["autocontrast", "equalize"])
def test_any_histogram_is_spread_as_in_pillow(name: str) -> None:
    powers = torch.rand(200, 3, 1, 1, generator=seeded(4)) * 8
    images = (256 * torch.rand(200, 3, 32, 32, generator=seeded(5)) ** powers).to(torch.uint8)
    images[:100] = images[:100] // 64 * 64
    result = OPERATIONS[name](images, torch.zeros(200))
    assert_as_pillow(name, result, images, torch.zeros(200))


def test_a_channel_is_stretched_by_the_exact_quotient() -> None:
    values = torch.arange(20, 110).to(torch.uint8).view(1, 1, 9, 10).repeat(1, 3, 1, 1)
    expected = [(value - 20) * 255 // 89 for value in range(20, 110)]
    assert operations.autocontrast(values)[0, 2].flatten().tolist() == expected


@everything
def test_an_answer_depends_on_its_own_image_alone(name: str) -> None:
    images, magnitudes = each_with_each(pictures(20, 32), torch.tensor([-0.7, 0.3]))
    together = OPERATIONS[name](images, magnitudes)
    for index in range(len(images)):
        one = slice(index, index + 1)
        assert torch.equal(OPERATIONS[name](images[one], magnitudes[one]), together[one])


@everything
def test_an_answer_does_not_depend_on_the_order_in_memory(name: str) -> None:
    images, magnitudes = each_with_each(pictures(20, 32), torch.tensor([-0.7, 0.3]))
    reordered = images.to(memory_format=torch.channels_last)
    assert torch.equal(
        OPERATIONS[name](reordered, magnitudes), OPERATIONS[name](images, magnitudes)
    )


@everything
def test_an_operation_leaves_what_it_is_given_as_it_was(name: str) -> None:
    images, magnitudes = pictures(20, 32), torch.linspace(-1, 1, len(pictures(20, 32)))
    given = images.clone(), magnitudes.clone()
    OPERATIONS[name](images, magnitudes)
    assert torch.equal(images, given[0])
    assert torch.equal(magnitudes, given[1])
