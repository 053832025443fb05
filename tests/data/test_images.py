"""The picture door: the right pixels from every encoding, one sentence for everything else."""

import io
import json
import os
import random
import re
import struct
import subprocess
import sys
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageFile

from resnet_cifar100.data.images import MAX_BYTES, load_image, open_image, square_32
from resnet_cifar100.errors import ImageError

ROOT = Path(__file__).parents[2]
TOLERANCE = 2  # mean absolute error in 8-bit levels: rounding of deep pixels, or a fine JPEG


# The picture: smooth, asymmetric in both directions, different in each channel; and its grey twin.
def picture(width: int = 48, height: int = 48) -> Image.Image:
    y, x = np.mgrid[0:height, 0:width]
    red, green = 255 * x / max(width - 1, 1), 255 * y / max(height - 1, 1)
    pixels = np.stack([red, green, (red + 255 - green) / 2], axis=2)  # (H,W,3)
    return Image.fromarray(pixels.astype(np.uint8))


RGB, GREY = picture(), picture().convert("L")
LEVELS = np.asarray(GREY, np.uint16)  # (48,48)


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(name: bytes, body: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(name + body))
    return struct.pack(">I", len(body)) + name + body + checksum


def png(pixels: np.ndarray, colour: int, depth: int = 16, extra: bytes = b"") -> bytes:
    """A PNG by hand from rows (H,W) or (H,W,C); colour 0 grey, 2 RGB, 4 grey + alpha, 6 RGBA."""
    height, width = pixels.shape[:2]
    rows = pixels.astype(">u2" if depth == 16 else np.uint8).reshape(height, -1)
    return png_of(
        width, height, depth, colour, b"".join(b"\0" + row.tobytes() for row in rows), extra
    )


def png_of(w: int, h: int, depth: int, colour: int, rows: bytes, extra: bytes = b"") -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, depth, colour, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(rows, 9))
    return b"\x89PNG\r\n\x1a\n" + header + extra + data + chunk(b"IEND", b"")


def tiff(*entries: tuple[int, int, int, int], body: bytes = b"", more: int = 0) -> bytes:
    """A little-endian TIFF by hand: entries (tag, type, count, value); body from byte 8."""
    table = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    body += bytes(len(body) % 2)
    head = b"II*\0" + struct.pack("<I", 8 + len(body))
    return head + body + struct.pack("<H", len(entries)) + table + struct.pack("<I", more)


def grey_tiff(pixels: np.ndarray, bits: int, sample_format: int) -> bytes:
    height, width = pixels.shape
    body = pixels.tobytes()
    layout = [(256, 3, 1, width), (257, 3, 1, height), (258, 3, 1, bits), (259, 3, 1, 1)]
    layout += [(262, 3, 1, 1), (273, 4, 1, 8), (277, 3, 1, 1), (278, 3, 1, height)]
    return tiff(*layout, (279, 4, 1, len(body)), (339, 3, 1, sample_format), body=body)


def rgb16_tiff() -> bytes:
    body = (np.asarray(RGB).astype("<u2") * 257).tobytes() + struct.pack("<HHH", 16, 16, 16)
    layout = [(256, 3, 1, 48), (257, 3, 1, 48), (258, 3, 3, 8 + len(body) - 6), (259, 3, 1, 1)]
    layout += [(262, 3, 1, 2), (273, 4, 1, 8), (277, 3, 1, 3), (278, 3, 1, 48)]
    return tiff(*layout, (279, 4, 1, len(body) - 6), body=body)


def tiled_tiff() -> bytes:
    """Nine tiles of 16 x 16, each three bytes a pixel."""
    rows = np.asarray(RGB).reshape(3, 16, 3, 16, 3)
    tiles = rows.transpose(0, 2, 1, 3, 4).tobytes()
    after, size = 8 + len(tiles), 16 * 16 * 3
    body = tiles + struct.pack("<HHH", 8, 8, 8) + struct.pack("<9I", *range(8, after, size))
    layout = [(256, 3, 1, 48), (257, 3, 1, 48), (258, 3, 3, after), (259, 3, 1, 1), (262, 3, 1, 2)]
    layout += [(277, 3, 1, 3), (322, 3, 1, 16), (323, 3, 1, 16), (324, 4, 9, after + 6)]
    body += struct.pack("<9I", *[size] * 9)
    return tiff(*layout, (325, 4, 9, after + 42), body=body)


def exif(orientation: int, prefix: bytes = b"Exif\0\0") -> bytes:
    return prefix + tiff((274, 3, 1, orientation))


def oriented(orientation: int) -> Image.Image:
    """The picture as a camera held that way stores it."""
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the inverse of what a viewer applies
    return RGB if orientation == 1 else RGB.transpose(Image.Transpose(undo[orientation]))


def lab() -> Image.Image:
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    return ImageCms.profileToProfile(RGB, *profiles, outputMode="LAB")


DEEP = LEVELS * 257  # (48,48), 0..65535
DEEP_RGB = np.asarray(RGB, np.uint16) * 257
PALETTE = RGB.quantize(256, dither=Image.Dither.NONE)
INK = GREY.point(lambda level: 255 * (level > 127))
OPAQUE = RGB.convert("RGBA")
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
BIG_ENDIAN = Image.frombytes("I;16B", GREY.size, DEEP.astype(">u2").tobytes())
FRAMES = {
    "save_all": True,
    "append_images": [Image.new("RGB", RGB.size, colour) for colour in ("black", "red")],
}
EXACT = {  # name -> the file, and the plain picture it must equal
    "RGB PNG": (encode(RGB), RGB),
    "RGBA PNG": (encode(OPAQUE), RGB),
    "grey PNG": (encode(GREY), GREY),
    "grey + alpha PNG": (encode(GREY.convert("LA")), GREY),
    "palette PNG": (encode(PALETTE), PALETTE),
    "palette + tRNS PNG": (encode(PALETTE, transparency=b"\xff" * 256), PALETTE),
    "1-bit PNG": (encode(INK.convert("1")), INK),
    "ICC-tagged PNG": (encode(RGB, icc_profile=SRGB), RGB),
    "first frame of an APNG": (encode(RGB, **FRAMES), RGB),
    "BMP": (encode(RGB, "BMP"), RGB),
    "palette BMP": (encode(PALETTE, "BMP"), PALETTE),
    "GIF": (encode(PALETTE, "GIF"), PALETTE),
    "first frame of a GIF": (encode(PALETTE, "GIF", **FRAMES), PALETTE),
    "WebP": (encode(RGB, "WEBP", lossless=True), RGB),
    "RGBA WebP": (encode(OPAQUE, "WEBP", lossless=True), RGB),
    "first frame of a WebP": (encode(RGB, "WEBP", lossless=True, **FRAMES), RGB),
    "RGB TIFF": (encode(RGB, "TIFF"), RGB),
    "RGBA TIFF": (encode(OPAQUE, "TIFF"), RGB),
    "palette TIFF": (encode(PALETTE, "TIFF"), PALETTE),
    "CMYK TIFF": (encode(RGB.convert("CMYK"), "TIFF"), RGB),
    "LZW TIFF": (encode(RGB, "TIFF", compression="tiff_lzw"), RGB),
    "deflate TIFF": (encode(RGB, "TIFF", compression="tiff_adobe_deflate"), RGB),
    "1-bit G4 TIFF": (encode(INK.convert("1"), "TIFF", compression="group4"), INK),
    "tiled TIFF": (tiled_tiff(), RGB),
    "first page of a TIFF": (encode(RGB, "TIFF", **FRAMES), RGB),
}
ROUNDED = {
    "16-bit grey PNG": (png(DEEP, 0), GREY),
    "16-bit grey + alpha PNG": (png(np.stack([DEEP, np.full_like(DEEP, 65535)], 2), 4), GREY),
    "16-bit RGB PNG": (png(DEEP_RGB, 2), RGB),
    "16-bit RGB TIFF": (rgb16_tiff(), RGB),
    "I;16 TIFF": (grey_tiff(DEEP, 16, 1), GREY),
    "I;16B TIFF": (encode(BIG_ENDIAN, "TIFF"), GREY),
    "32-bit integer TIFF": (grey_tiff(DEEP.astype("<i4"), 32, 2), GREY),
    "float TIFF, white 1": (grey_tiff((LEVELS / 255).astype("<f4"), 32, 3), GREY),
    "float TIFF, white 255": (grey_tiff(LEVELS.astype("<f4"), 32, 3), GREY),
    "LAB TIFF": (encode(lab(), "TIFF"), RGB),
}
LOSSY = {
    "YCbCr JPEG": (encode(RGB, "JPEG", quality=95), RGB),
    "progressive JPEG": (encode(RGB, "JPEG", quality=95, progressive=True), RGB),
    "grey JPEG": (encode(GREY, "JPEG", quality=95), GREY),
    "Adobe-inverted CMYK JPEG": (encode(RGB.convert("CMYK"), "JPEG", quality=95), RGB),
    "ICC-tagged JPEG": (encode(RGB, "JPEG", quality=95, icc_profile=SRGB), RGB),
    "JPEG in a TIFF": (encode(RGB, "TIFF", compression="jpeg", quality=95), RGB),
    "lossy WebP": (encode(RGB, "WEBP", quality=95), RGB),
}
ENCODINGS = EXACT | ROUNDED | LOSSY


def error(image: np.ndarray, plain: np.ndarray) -> float:
    return float(np.abs(image.astype(float) - plain).mean())


def answers(data: bytes) -> bool:
    """Whether the bytes are a picture; if not, the refusal must be one plain sentence."""
    try:
        image = load_image(data)
    except ImageError as refusal:
        sentence = str(refusal)
    else:
        assert image.shape == (32, 32, 3)
        assert image.dtype == np.uint8
        return True
    assert re.fullmatch(r"The picture [ -~]+\.", sentence)
    return False


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
    for block in (b"Exif\0\0II*\0", b"Exif\0\0nonsense", exif(6)[:-9], exif(0), exif(9)):
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


# Bombs: small files that cost much. Decoded naively, those below take up to 50 s or 2 GiB.


def repeated(data: bytes, at: int, piece: bytes, size: int = MAX_BYTES - 10_000) -> bytes:
    return data[:at] + piece * (size // len(piece)) + data[at:]


def gif_with(piece: bytes, before: bytes = b"", after: bytes = b"") -> bytes:
    gif = encode(Image.new("P", (32, 32)), "GIF")
    start = 13 + (6 << (gif[10] & 7))
    return repeated(gif[:start] + before + after + gif[start:], start + len(before), piece)


def gif_of_10_000_frames() -> bytes:
    gif = encode(Image.new("P", (32, 32)), "GIF")
    frame = gif[13 + (6 << (gif[10] & 7)) : -1]
    return gif[:-1] + frame * 9_999 + b";"


SMALL_TIFF = [(256, 3, 1, 4), (257, 3, 1, 4), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1)]
SMALL_TIFF += [(273, 4, 1, 8), (277, 3, 1, 1), (278, 3, 1, 4), (279, 4, 1, 16)]


def overlapping_tags(count: int, size: int) -> bytes:
    """A picture of 4 x 4, and tags that each claim the same whole body."""
    claims = [(1000 + i, 7, size, 8) for i in range(count)]
    return tiff(*SMALL_TIFF, *claims, body=bytes(size))


def jpeg_with_overlapping_exif() -> bytes:
    jpeg, block = encode(RGB, "JPEG"), b"Exif\0\0" + overlapping_tags(2500, 30_000)
    segment = b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block
    return repeated(jpeg[:2] + jpeg[20:], 2, segment, 4_000_000)  # without the JFIF segment


def tiff_chain() -> bytes:
    """A picture of 4 x 4 in a directory that is followed by 100,000 others."""
    starts = range(24, 24 + 18 * 100_000, 18)  # after the 16 pixels
    chain = (struct.pack("<HHHIII", 1, 256, 3, 1, 1, start + 18) for start in starts)
    return tiff(*SMALL_TIFF, body=bytes(16) + b"".join(chain), more=starts[0])


def tiff_of_one_tile() -> bytes:
    body = zlib.compress(bytes(1 << 20), 9)
    side = 46_320  # a 2 GiB tile over a picture of 100 x 100
    entries = [(256, 4, 1, 100), (257, 4, 1, 100), (258, 3, 1, 8), (259, 3, 1, 8), (262, 3, 1, 1)]
    tile = [(277, 3, 1, 1), (322, 4, 1, side), (323, 4, 1, side), (324, 4, 1, 8)]
    return tiff(*entries, *tile, (325, 4, 1, len(body)), body=body)


def webp_canvas() -> bytes:
    frame = encode(Image.new("RGB", (32, 32)), "WEBP", lossless=True)[12:]
    sides = (31).to_bytes(3, "little") * 2
    part = bytes(6) + sides + (10).to_bytes(3, "little") + b"\0" + frame
    canvas = struct.pack("<II", 10, 2) + (16382).to_bytes(3, "little") * 2
    body = b"WEBPVP8X" + canvas + b"ANIM" + struct.pack("<IIH", 6, 0, 0)
    body += b"ANMF" + struct.pack("<I", len(part)) + part
    return b"RIFF" + struct.pack("<I", len(body)) + body


def jpeg_of_many_scans() -> bytes:
    jpeg = encode(Image.new("RGB", (4000, 4000)), "JPEG", progressive=True)
    last = jpeg.rfind(b"\xff\xda")
    return repeated(jpeg, len(jpeg) - 2, jpeg[last:-2], 2_000_000)


def rle_bmp() -> bytes:
    head = struct.pack("<IHHI", 0, 0, 0, 62)
    info = struct.pack("<IiiHHIIiiII", 40, 5000, 5000, 1, 8, 1, 0, 0, 0, 2, 0)
    return b"BM" + head + info + bytes(8) + b"\1\0" * 2_400_000


def small_png(extra: bytes) -> bytes:
    return png_of(32, 32, 8, 0, bytes(33 * 32), extra)


MEGABYTE = zlib.compress(bytes(1 << 20), 9)
BOMBS: dict[str, tuple[Callable[[], bytes], bool]] = {  # name -> how it is built, whether answered
    "100 MP 1-bit PNG": (lambda: png_of(10_000, 10_000, 1, 0, bytes(1251 * 10_000)), False),
    "196 MP PNG": (lambda: png_of(14_000, 14_000, 1, 0, bytes(1751 * 14_000)), False),
    "PNG of 60,000 x 1": (lambda: png_of(60_000, 1, 8, 0, bytes(60_001)), False),
    "PNG of 0 x 1": (lambda: png_of(0, 1, 8, 0, b""), False),
    "PNG zTXt": (
        lambda: small_png(b"".join(chunk(b"zTXt", b"%d\0\0" % i + MEGABYTE) for i in range(63))),
        True,
    ),
    "PNG iCCP": (lambda: small_png(chunk(b"iCCP", b"x\0\0" + MEGABYTE) * 4000), True),
    "PNG of empty chunks": (lambda: small_png(chunk(b"IDAT", b"") * 400_000), False),
    "GIF of 10,000 frames": (gif_of_10_000_frames, True),
    "GIF of comments": (lambda: gif_with(b"\x21\xfe\1x\0"), True),
    "GIF of one comment, byte by byte": (lambda: gif_with(b"\1x", b"\x21\xfe", b"\0"), True),
    "JPEG with overlapping EXIF tags": (jpeg_with_overlapping_exif, True),
    "JPEG of many scans": (jpeg_of_many_scans, False),
    "JPEG of many tables": (
        lambda: repeated(encode(RGB, "JPEG"), 2, b"\xff\xdd\0\4\0\0"),
        False,
    ),
    "TIFF chain": (tiff_chain, True),
    "TIFF with overlapping tags": (lambda: overlapping_tags(400, 4_000_000), True),
    "TIFF of one huge tile": (tiff_of_one_tile, False),
    "WebP of the largest canvas": (webp_canvas, False),
    "run-length coded BMP": (rle_bmp, False),
}


MEASURE = """
import json, sys, time
from pathlib import Path
from resnet_cifar100.data.images import load_image
from resnet_cifar100.errors import ImageError

def peak():  # not ru_maxrss: a child inherits its parent's
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024

def answer(path):
    try:
        return load_image(path) is not None
    except ImageError:
        return False

bombs, warm = sorted(Path(sys.argv[1]).iterdir()), sorted(Path(sys.argv[2]).iterdir())
assert all([answer(path) for path in warm])
costs = {}
for path in bombs:
    before, start = peak(), time.process_time()
    costs[path.name] = answer(path), time.process_time() - start, peak() - before
print(json.dumps(costs))
"""


@pytest.fixture(scope="module")
def bomb_costs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[bool, float, float]]:
    """Bomb -> (answered, CPU seconds, MiB above the highest use so far), from a new process."""
    bombs, warm = tmp_path_factory.mktemp("bombs"), tmp_path_factory.mktemp("warm")
    for name, (build, _) in BOMBS.items():
        (bombs / name).write_bytes(build())
    for kind in ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"):
        (warm / kind).write_bytes(encode(picture(500, 500), kind))
    command = [sys.executable, "-W", "default", "-c", MEASURE, str(bombs), str(warm)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_disarmed_at_once(name: str, bomb_costs: dict) -> None:
    answered, seconds, mebibytes = bomb_costs[name]
    assert answered == BOMBS[name][1]
    assert seconds < 0.6  # at most 0.25 measured, for 5 MB of GIF comments; unguarded 50
    assert mebibytes < 50  # unguarded up to 2,000


def test_a_bomb_warning_is_a_refusal_and_reaches_nobody() -> None:
    data = png_of(10_000, 10_000, 1, 0, bytes(1251 * 10_000))
    with pytest.raises(ImageError, match="more than 25 megapixels"):
        load_image(data)


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
