"""The right pixels, whatever the encoding."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from resnet_cifar100.data.images import load_image, open_image, square_32
from tests.data.images.pictures import (
    ENCODINGS,
    EXACT,
    RGB,
    TOLERANCE,
    answers,
    encode,
    error,
    exif,
    grey_tiff,
    oriented,
    picture,
    png,
    tiff,
)

# The right pixels.


@pytest.mark.parametrize("name", ENCODINGS)
def test_the_same_picture_looks_the_same_in_every_encoding(name: str) -> None:
    data, plain = ENCODINGS[name]
    difference = error(load_image(data), load_image(encode(plain.convert("RGB"))))
    assert difference <= (0 if name in EXACT else TOLERANCE)


def test_a_32_pixel_png_passes_through_bit_for_bit() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    np.testing.assert_array_equal(load_image(encode(Image.fromarray(noise))), noise)


def test_a_wide_picture_loses_its_two_ends_and_nothing_else() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (32, 57, 3), dtype=np.uint8)
    np.testing.assert_array_equal(square_32(Image.fromarray(noise)), noise[:, 12:44])


def test_a_fine_chequerboard_shrinks_to_even_grey() -> None:
    board = (np.indices((320, 320)).sum(axis=0) % 2 * 255).astype(np.uint8)
    assert np.abs(load_image(encode(Image.fromarray(board))).astype(int) - 127).max() <= 2


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_camera_held_sideways_gives_an_upright_picture(kind: str, orientation: int) -> None:
    stored, lossless = oriented(orientation), {"lossless": True} if kind == "WEBP" else {}
    tags = {"tiffinfo": {274: orientation}} if kind == "TIFF" else {"exif": exif(orientation)}
    data = encode(stored, kind, **tags, **lossless)
    assert error(load_image(data), load_image(encode(RGB))) <= (TOLERANCE if kind == "JPEG" else 0)


def test_a_damaged_exif_block_leaves_the_picture_as_it_is() -> None:
    long = [b"Exif\0\0" + tiff((274, 4, 1, number)) for number in (70_000, 4_000_000_000)]
    for block in (b"Exif\0\0II*\0", b"Exif\0\0nonsense", exif(6)[:-9], exif(0), exif(9), *long):
        assert error(load_image(encode(RGB, exif=block)), load_image(encode(RGB))) == 0


def test_a_sixteen_bit_ramp_keeps_its_grey_levels() -> None:
    ramp = np.tile(np.linspace(0, 65535, 64), (64, 1))
    image = load_image(png(ramp, 0))
    assert len(np.unique(image)) > 30
    assert image.min() < 8
    assert image.max() > 247


def test_integers_and_floats_of_any_custom_keep_their_white() -> None:
    for white in (255, 65535, 2**31 - 1):
        steps = np.full((40, 40), white, "<i4")
        assert load_image(grey_tiff(steps, 32, 2)).min() >= 254
    odd = np.full((40, 40), 1.02, "<f4")
    odd[0] = np.nan, *[np.inf] * 10, *[-np.inf] * 10, *[-5.0] * 19
    assert load_image(grey_tiff(odd, 32, 3))[16].min() >= 254


def test_transparent_red_is_white_and_half_transparent_red_is_pink() -> None:
    for kind in ("PNG", "WEBP", "TIFF"):
        for alpha, expected in ((0, (255, 255, 255)), (128, (255, 127, 127)), (255, (255, 0, 0))):
            lossless = {"lossless": True, "exact": True} if kind == "WEBP" else {}
            data = encode(Image.new("RGBA", (40, 40), (255, 0, 0, alpha)), kind, **lossless)
            assert error(load_image(data), np.array(expected)) <= 1


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB"])
def test_a_keyed_colour_or_clear_pixel_shows_the_white_page(mode: str) -> None:
    clear = {"1": 0, "L": 10, "LA": (10, 0), "P": 3, "RGB": (10, 20, 30)}[mode]
    image = Image.new(mode, (40, 40), clear)
    if mode == "P":
        image.putpalette([100] * 768)
    data = encode(image) if mode == "LA" else encode(image, transparency=clear)
    assert load_image(data).min() == 255


def test_a_transparent_gif_shows_the_white_page() -> None:
    image = Image.new("P", (40, 40), 3)
    image.putpalette([100] * 768)
    assert load_image(encode(image, "GIF", transparency=3)).min() == 255


def test_a_large_photo_is_decoded_small_and_still_right() -> None:
    photo = picture(4000, 3000)
    upright = open_image(encode(photo, "JPEG", quality=90, exif=exif(1)))
    assert upright.size == (1000, 750)
    assert error(square_32(upright), square_32(photo)) <= TOLERANCE


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (5000, 1), (2, 3), (31, 33), (20000, 1)])
def test_extreme_shapes_give_a_picture(shape: tuple[int, int]) -> None:
    assert answers(encode(Image.new("RGB", shape, "green")))


@settings(max_examples=60, deadline=None, database=None)
@given(st.integers(1, 300), st.integers(1, 300), st.sampled_from(["PNG", "JPEG", "BMP", "GIF"]))
def test_any_shape_gives_a_picture(width: int, height: int, kind: str) -> None:
    assert answers(encode(picture(width, height), kind))
