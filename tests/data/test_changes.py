from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from resnet_cifar100.data import augment
from resnet_cifar100.data.operations import OPERATIONS, Operation
from tests import reference
from tests.data.batches import noise, plain, seeded

CENTRES = [(y, x) for y in range(8) for x in range(10)]


@pytest.mark.parametrize("side", [1, 4, 5, 8])
def test_cutout_blanks_a_square_cut_at_the_border_and_nothing_else(side: int) -> None:
    images = noise(100, 8, 10, lowest=1)
    result = augment.cutout(images, seeded(side), side)
    for before, after in zip(images.numpy(), result.numpy(), strict=True):
        assert any(
            np.array_equal(after, reference.cutout(before, y=y, x=x, side=side)) for y, x in CENTRES
        )


@pytest.mark.parametrize("side", [1, 4, 5])
def test_the_centre_of_cutout_is_any_pixel_alike(side: int) -> None:
    white = plain(20_000, 255, 8, 10)
    counts = {
        reference.cutout(white[0].numpy(), y=y, x=x, side=side).tobytes(): 0 for y, x in CENTRES
    }
    assert len(counts) == 80
    for image in augment.cutout(white, seeded(side), side).numpy():
        counts[image.tobytes()] += 1
    assert max(abs(count - 250) for count in counts.values()) < 5 * 250**0.5


@pytest.mark.parametrize(("height", "width"), [(32, 32), (20, 32), (7, 3)])
def test_random_erasing_fills_the_box_that_was_drawn_with_noise(height: int, width: int) -> None:
    images, generator = noise(300, height, width), seeded(1)
    shares, shapes, down, across, luck = torch.rand(5, 300, generator=generator).tolist()
    pixels = torch.randint(
        -(2**63), 2**63 - 1, (images.numel() // 8 + 1,), generator=generator
    ).view(torch.uint8)[: images.numel()]
    filling = pixels.view(images.shape).numpy()
    result = augment.random_erasing(images, seeded(1), 0.7).numpy()
    for index, image in enumerate(images.numpy()):
        expected = reference.erase(
            image,
            filling[index],
            area=(0.02 + 0.38 * shares[index]) * height * width,
            aspect=0.3 + (1 / 0.3 - 0.3) * shapes[index],
            down=down[index],
            across=across[index],
        )
        assert np.array_equal(result[index], expected if luck[index] < 0.7 else image)


def boxes_in(images: Tensor, value: int) -> Tensor:
    """Return top, left, height and width (N,4) of the one box in each that is not of `value`."""
    boxes = []
    for mask in (images != value).any(1):
        rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
        top, left, bottom, right = rows[0], columns[0], rows[-1] + 1, columns[-1] + 1
        assert mask.sum() == (bottom - top) * (right - left)
        boxes.append((int(top), int(left), int(bottom - top), int(right - left)))
    return torch.tensor(boxes)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (20, 32)])
def test_an_erased_box_has_an_area_and_a_shape_of_the_paper(height: int, width: int) -> None:
    erased = augment.random_erasing(plain(1000, 90, height, width), seeded(2), 1)
    tall, wide = boxes_in(erased, 90)[:, 2:].double().unbind(1)
    assert ((tall - 0.5) * (wide - 0.5) <= 0.4 * height * width).all()
    assert ((tall + 0.5) * (wide + 0.5) >= 0.02 * height * width).all()
    assert ((tall - 0.5) / (wide + 0.5) <= 1 / 0.3).all()
    assert ((tall + 0.5) / (wide - 0.5) >= 0.3).all()
    shares, shapes = tall * wide / (height * width), tall / wide
    assert shares.min() < 0.03
    assert shares.max() > 0.35
    assert abs(shares.mean() - 0.21) < 0.02
    assert shapes.min() < 0.4
    assert shapes.max() > 2.5


def test_an_erased_box_is_anywhere_in_the_image() -> None:
    boxes = boxes_in(augment.random_erasing(plain(1000, 90, 20, 32), seeded(3), 1), 90)
    tops, lefts, heights, widths = boxes.unbind(1)
    for starts, room in ((tops, 20 - heights), (lefts, 32 - widths)):
        assert (starts == 0).any()
        assert (starts == room).any()
        assert abs((starts / room)[room > 0].mean() - 0.5) < 0.05


def test_an_erased_box_is_full_of_noise_and_the_rest_is_left() -> None:
    images = noise(300)
    erased = augment.random_erasing(plain(300, 90), seeded(4), 1)
    mask = (erased != 90).any(1, keepdim=True)
    result = augment.random_erasing(images, seeded(4), 1)
    assert torch.equal(torch.where(mask, 0, result), torch.where(mask, 0, images))
    values = result[mask.expand_as(result)]
    often = len(values) / 256
    assert (torch.bincount(values.long(), minlength=256) - often).abs().max() < 5 * often**0.5
    is_as_its_neighbour = (result[..., 1:] == result[..., :-1]) & mask[..., 1:] & mask[..., :-1]
    assert is_as_its_neighbour.sum() < 1.1 * often


@pytest.mark.parametrize("probability", [0, 0.25, 1])
def test_as_many_images_are_erased_as_asked_for(probability: float) -> None:
    images = noise(2000, 8, 8)
    result = augment.random_erasing(images, seeded(5), probability)
    share = float((result != images).flatten(1).any(1).float().mean())
    assert abs(share - probability) <= 5 * (probability * (1 - probability) / 2000) ** 0.5


@pytest.mark.parametrize("degrees", [0, 15, 90])
def test_an_image_turns_either_way_up_to_the_degrees(degrees: float) -> None:
    y, x = torch.meshgrid(torch.arange(48), torch.arange(48), indexing="ij")
    coordinates = torch.stack([x, y, x]).to(torch.uint8).expand(200, 3, 48, 48)
    x, y, _ = (augment.rotation(coordinates, seeded(6), degrees).double() - 23.5).unbind(1)
    source, place = torch.complex(x, y), torch.complex(*(coordinates[0, :2].double() - 23.5))
    place[place.abs() > 22] = 0
    angles = (source * place.conj()).sum((1, 2)).angle().rad2deg()
    assert angles.abs().max() < degrees + 0.3
    if degrees:
        assert reference.follows(angles.tolist(), lambda angle: (angle + degrees) / (2 * degrees))


def test_colours_change_in_brightness_then_contrast_then_saturation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    factors: dict[str, Tensor] = {}

    def watched(operation: Operation, images: Tensor, chosen: Tensor) -> Tensor:
        factors[operation.__name__] = chosen
        return operation(images, chosen)

    for name in ("brightness", "contrast", "color"):
        monkeypatch.setattr(augment, name, partial(watched, getattr(augment, name)))
    images = noise(300, 8, 8)
    result = augment.color_jitter(images, seeded(7), 0.4)
    assert list(factors) == ["brightness", "contrast", "color"]
    assert torch.stack(list(factors.values())).unique().numel() > 890
    for chosen in factors.values():
        assert reference.follows(chosen.tolist(), lambda factor: (factor - 0.6) / 0.8)
        assert 0.6 <= chosen.min() < chosen.max() <= 1.4
    for index, image in enumerate(images.numpy()):
        for name, chosen in factors.items():
            image = reference.by_pillow(name, image, float(chosen[index]))
        assert np.array_equal(result[index].numpy(), image)


@pytest.mark.parametrize("strongest", [1, 0.5])
def test_trivial_augment_is_one_operation_of_a_strength_up_to_the_strongest(
    strongest: float,
) -> None:
    images = noise(300, 16, 17)
    result = augment.trivial_augment(images, seeded(8), strongest)
    found: list[set[tuple[str, float]]] = [set() for _ in images]
    for name, operation in OPERATIONS.items():
        for magnitude in strongest * torch.arange(-30, 31) / 30:
            candidates = operation(images, magnitude.repeat(300))
            for index in (candidates == result).flatten(1).all(1).nonzero().flatten().tolist():
                found[index].add((name, float(magnitude)))
    assert all(found)
    names = [{name for name, _ in ways} for ways in found]
    for name in set(OPERATIONS) - {"identity"}:  # which equals any other of magnitude 0
        assert 5 <= names.count({name}) <= 40
    magnitudes = torch.tensor([min(ways)[1] for ways in found if len(ways) == 1])
    assert magnitudes.max() == strongest
    assert magnitudes.min() == -strongest
    assert len(magnitudes.unique()) > 45


@pytest.mark.parametrize("level", [9, 30])
def test_rand_augment_is_two_operations_of_its_level(level: int) -> None:
    images = noise(100, 16, 17)
    result = augment.rand_augment(images, seeded(9), level)
    is_found = torch.zeros(100, dtype=torch.bool)
    strengths = [torch.full((100,), sign * level / 30) for sign in (-1, 1)]
    for first in OPERATIONS.values():
        for strength in strengths:
            once = first(images, strength)
            for second in OPERATIONS.values():
                for again in strengths:
                    is_found |= (second(once, again) == result).flatten(1).all(1)
    assert is_found.all()


@pytest.mark.parametrize("name", ["trivial_augment", "rand_augment"])
def test_at_strength_zero_an_image_of_one_colour_stays(name: str) -> None:
    images = plain(200, 120)
    assert torch.equal(getattr(augment, name)(images, seeded(10), 0), images)


@pytest.mark.parametrize("name", ["rotation", "color_jitter"])
def test_at_strength_zero_every_image_stays(name: str) -> None:
    images = noise(20)
    assert torch.equal(getattr(augment, name)(images, seeded(11), 0), images)
