"""Small files that cost much: decoded naively up to 50 s or 2 GiB."""

import json
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable

import pytest
from PIL import Image

from resnet_cifar100.data.images import MAX_BYTES, load_image
from resnet_cifar100.errors import ImageError
from tests.data.images.pictures import RGB, ROOT, chunk, encode, picture, png_of, tiff

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
    assert seconds < 5  # at most 0.25 measured, for 5 MB of GIF comments; unguarded 50
    assert mebibytes < 200  # unguarded up to 2,000


def test_a_bomb_warning_is_a_refusal_and_reaches_nobody() -> None:
    data = png_of(10_000, 10_000, 1, 0, bytes(1251 * 10_000))
    with pytest.raises(ImageError, match="more than 25 megapixels"):
        load_image(data)
