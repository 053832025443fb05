"""Damaged and foreign files, and files that are none."""

import os
import random
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from resnet_cifar100.data.images import MAX_BYTES, load_image
from resnet_cifar100.errors import ImageError
from tests.data.images.pictures import BIG_ENDIAN, ENCODINGS, RGB, answers, encode, exif, picture
from tests.data.images.test_bombs import BOMBS

# Damage and foreign files.


def small_files() -> dict[str, bytes]:
    tiny = picture(9, 7)
    files = {kind: encode(tiny, kind) for kind in ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")}
    files["JPEG"] = encode(tiny, "JPEG", exif=exif(6))
    files["packed TIFF"] = encode(tiny, "TIFF", compression="tiff_lzw")
    files["deep TIFF"] = encode(BIG_ENDIAN.crop((0, 0, 9, 7)), "TIFF")
    files["lossless WebP"] = encode(tiny, "WEBP", lossless=True, exif=exif(6))
    files["palette PNG"] = encode(tiny.quantize(8), exif=exif(6), transparency=0)
    return files


@pytest.mark.parametrize("name", small_files())
def test_every_prefix_of_a_file_gives_a_picture_or_a_sentence(name: str) -> None:
    data = small_files()[name]
    answered = [answers(data[:length]) for length in range(len(data))]
    assert not any(answered[: len(answered) // 2])


@pytest.mark.parametrize("name", small_files())
def test_random_damage_gives_a_picture_or_a_sentence(name: str) -> None:
    generator, data = random.Random(0), small_files()[name]
    for _ in range(200):
        damaged = bytearray(data)
        for _ in range(generator.randint(1, 4)):
            at = generator.choice((generator.randrange(len(data)), generator.randrange(60)))
            damaged[at] = generator.choice((0, 1, 0x7F, 0xFF, generator.randrange(256)))
        answers(bytes(damaged))


@settings(max_examples=200, deadline=None, database=None)
@given(
    st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"II*\0", b"BM"]),
    st.binary(max_size=200),
)
def test_random_bytes_give_a_sentence(magic: bytes, body: bytes) -> None:
    answers(magic + body)


FOREIGN = {
    "SVG": b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
    "EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    "PDF": b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n",
    "HTML": b"<!doctype html><title>BMW</title>",
    "text": b"BMW is a car maker, and this text only looks like a bitmap at its very start.",
    "zip": b"PK\x03\x04" + bytes(26),
    "mp4": b"\0\0\0\x18ftypmp42" + bytes(12),
    "one zero": b"\0",
    "zeros": bytes(5000),
    "ICO": b"\0\0\1\0\1\0" + bytes(30),
    "JPEG 2000": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(30),
    "BigTIFF": b"II+\0\x08\0\0\0" + bytes(30),
    "PPM": b"P6 1 1 255 abc",
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_file_is_told_which_kinds_are_read(name: str) -> None:
    with pytest.raises(ImageError, match=r"is not a PNG, JPEG, WebP, GIF, TIFF or plain BMP"):
        load_image(FOREIGN[name])


def test_the_name_of_a_file_does_not_decide_its_kind(tmp_path: Path) -> None:
    (tmp_path / "picture.gif").write_bytes(encode(RGB))
    np.testing.assert_array_equal(load_image(tmp_path / "picture.gif"), load_image(encode(RGB)))


def test_only_the_program_of_the_first_bytes_reads_the_file() -> None:
    assert not answers(b"GIF89a" + encode(RGB))
    assert not answers(b"\x89PNG\r\n\x1a\n" + encode(RGB, "JPEG"))


# Files.


def test_a_path_that_is_no_readable_file_is_named_in_the_sentence(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "nowhere.png").symlink_to(tmp_path / "gone")
    for name in (".", "missing.png", "empty.png", "pipe.png", "nowhere.png", "x" * 999, "a\0b"):
        with pytest.raises(ImageError) as refusal:
            load_image(tmp_path / name)
        assert repr(str(tmp_path / name)) in str(refusal.value)
        assert str(refusal.value).endswith(".")


def test_a_file_that_may_not_be_read_is_named_in_the_sentence(tmp_path: Path) -> None:
    path, user = tmp_path / "secret.png", os.geteuid()
    path.write_bytes(encode(RGB))
    path.chmod(0)
    try:
        if user == 0:
            os.seteuid(65534)  # root may read anything
        with pytest.raises(ImageError, match=r"secret\.png' cannot be read: Permission denied\."):
            load_image(path)
    finally:
        os.seteuid(user)


def test_a_file_over_the_byte_limit_is_not_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "huge.png"
    with path.open("wb") as file:
        file.truncate(10**13)  # 10 TB of nothing
    with pytest.raises(ImageError, match=r"huge\.png' is larger than 5 MB"):
        load_image(path)
    assert answers(encode(RGB).ljust(MAX_BYTES, b"\0"))
    assert not answers(encode(RGB).ljust(MAX_BYTES + 1, b"\0"))


# The process around it.


def test_warnings_as_errors_change_no_answer() -> None:
    data = [data for data, _ in ENCODINGS.values()] + list(small_files().values())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        calm = [load_image(each) for each in data]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal([load_image(each) for each in data], calm)


def test_many_threads_get_the_answers_of_one() -> None:
    data = [data for data, _ in ENCODINGS.values()]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(load_image, data * 3))
    np.testing.assert_array_equal(together, [load_image(each) for each in data] * 3)


def test_the_settings_of_pillow_stay_as_they_were() -> None:
    before = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
    answers(encode(RGB))
    answers(BOMBS["196 MP PNG"][0]())
    assert before == (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)
    assert before[1] is False
