"""One picture in every encoding, most of them made by hand."""

import io
import re
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

from resnet_cifar100.data.images import load_image
from resnet_cifar100.errors import ImageError

ROOT = Path(__file__).parents[3]
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
