"""The one door for pictures from outside: a file or bytes in, upright RGB or (32, 32, 3) out.

The sender is not trusted: length, kind and size are checked before anything is decoded, and what no
decoder needs (comments, profiles, tag tables: a small file can hold a minute or gigabytes) is cut.
"""

import contextlib
import io
import math
import re
import struct
import warnings
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps, TiffImagePlugin, WebPImagePlugin  # noqa: F401

from resnet_cifar100.constants import IMAGE_SIZE
from resnet_cifar100.errors import ImageError

MAX_BYTES = 5_000_000
MAX_PIXELS = 25_000_000  # a 24-megapixel camera fits; one such picture takes up to 400 MiB
MAX_SIDE = 20_000  # a panorama fits
DRAFT_SIZE = (512, 512)  # a large JPEG is decoded at 1/2, 1/4 or 1/8, but never below this

_MAX_SCANS, _MAX_PARTS = 40, 10_000  # of a JPEG, or chunks of a PNG: encoders write about 10, 1000
_MAX_TABLE = 300_000  # numbers in the kept tags of a TIFF: 16 x 16 tiles need 200,000
_MAGIC = {
    "PNG": rb"\x89PNG\r\n\x1a\n",
    "JPEG": rb"\xff\xd8\xff",
    "WEBP": rb"RIFF....WEBP",
    "BMP": rb"BM.{12}(\x0c|.{16}[\0\3])",  # run-length coding is left out: Pillow takes 2 s for it
    "GIF": rb"GIF8[79]a",
    "TIFF": rb"II\*\0|MM\0\*",
}
_PNG_KEEP = {b"IHDR", b"PLTE", b"tRNS", b"eXIf", b"IDAT", b"IEND"}
_TIFF_KEEP = {256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 292, 293, 317, 320}  # layout
_TIFF_KEEP |= {322, 323, 324, 325, 332, 338, 339, 347, 529, 530, 531, 532}  # tiles, inks, YCbCr
warnings.simplefilter("error", Image.DecompressionBombWarning)  # once: filters are not per thread


def load_image(source: Path | bytes) -> np.ndarray:
    """Return a picture as the network sees it, uint8 (32, 32, 3). ImageError as in `open_image`."""
    return square_32(open_image(source))


def open_image(source: Path | bytes) -> Image.Image:
    """Return the first frame in 8-bit RGB, upright, what is transparent on white.

    A colour profile is ignored, and a large JPEG comes back smaller (`DRAFT_SIZE`). Whatever is not
    a sound picture within the limits above is an ImageError: one sentence that says why.
    """
    name = "The picture" if isinstance(source, bytes) else repr(str(source))
    try:
        return _decode(_read(source))
    except ImageError as reason:
        raise ImageError(f"{name} {reason}.") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        limits = f"{MAX_PIXELS // 10**6} megapixels, or {MAX_SIDE} pixels on one side"
        raise ImageError(f"{name} has more than {limits}; make it smaller first.") from None
    except Exception as error:  # damage shows as anything from IndexError to MemoryError
        raise ImageError(f"{name} is damaged, cut short or rare; save it as PNG first.") from error


def square_32(image: Image.Image) -> np.ndarray:
    """Return the centre square of an RGB image of any size, antialiased to uint8 (32, 32, 3).

    Cropped rather than padded: in CIFAR the object sits in the middle and fills the frame, and bars
    are pixels the network never saw. A 32 x 32 image keeps every bit.
    """
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side))
    return np.array(square.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC))


def _read(source: Path | bytes) -> bytes:
    """Return the bytes, reading at most one too many. Raises ImageError without its subject."""
    try:
        if isinstance(source, Path) and source.exists() and not source.is_file():
            raise ImageError("is a folder or a device, not a file")  # a pipe would never end
        with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror}") from error
    if not data:
        raise ImageError("is empty")
    if len(data) > MAX_BYTES:
        raise ImageError(f"is larger than {MAX_BYTES // 10**6} MB; make it smaller first")
    return data


def _decode(data: bytes) -> Image.Image:
    """Return the upright RGB picture. Raises ImageError without its subject, or anything else."""
    kind = next((kind for kind in _MAGIC if re.match(_MAGIC[kind], data, re.DOTALL)), "")
    if not kind:
        raise ImageError("is not a PNG, JPEG, WebP, GIF, TIFF or plain BMP; save it as PNG first")
    bare = _BARE[kind](data) if kind in _BARE else data
    image = Image.open(io.BytesIO(bare), formats=[kind])
    if max(image.size) > MAX_SIDE or image.width * image.height > MAX_PIXELS:
        raise Image.DecompressionBombError
    image.draft(None, DRAFT_SIZE)
    image.load()
    exif = {"JPEG": data.partition(b"\xff\xda")[0].partition(b"Exif\0\0")[2], "TIFF": data}
    return _upright(_rgb(image), exif.get(kind) or image.info.get("exif", b""))


def _rgb(image: Image.Image) -> Image.Image:
    """Return a picture of any Pillow mode in 8-bit RGB, what is transparent on a white page."""
    if image.mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        return ImageCms.buildTransform(lab, srgb, "LAB", "RGB").apply(image)
    if image.mode[0] in "IF":
        image = _eight_bit(image)
    if image.has_transparency_data:
        page = Image.new("RGBA", image.size, "white")  # what cut-outs are drawn for, often CIFAR's
        image = Image.alpha_composite(page, image.convert("RGBA"))
    return image.convert("RGB")


def _eight_bit(image: Image.Image) -> Image.Image:
    """Return deep grey in mode L, scaled so that white stays white (Pillow's convert clips)."""
    values = np.nan_to_num(np.asarray(image, np.float32), posinf=0, neginf=0)
    # White is 65535 in 16 bits. In 32 bits (I, F) customs differ: the least that fits is taken.
    whites = (65535,) if image.mode.startswith("I;16") else (1, 255, 65535, 2**31)
    white = next((white for white in whites if round(values.max()) <= white), values.max())
    return Image.fromarray(np.rint(np.clip(values, 0, white) * (255 / white)).astype(np.uint8))


def _upright(image: Image.Image, exif: bytes) -> Image.Image:
    """Turn the picture as its EXIF block (of a TIFF: the file) says; a damaged one says nothing."""
    clean, orientation = Image.Exif(), 274
    with contextlib.suppress(struct.error, KeyError):
        _, number, _ = _tags(exif.removeprefix(b"Exif\0\0"))[orientation]
        if 1 <= number <= 8:
            clean[orientation] = number
    image.info = {"exif": clean.tobytes()}
    ImageOps.exif_transpose(image, in_place=True)
    return image


def _bare_png(data: bytes) -> bytes:
    """Drop texts and profiles, each of which may inflate to a megabyte, and all later frames."""
    kept, start = [data[:8]], 8
    while start < len(data):
        end = start + 12 + int.from_bytes(data[start : start + 4], "big")
        if data[start + 4 : start + 8] in _PNG_KEEP:
            kept.append(data[start:end])
        if len(kept) > _MAX_PARTS:
            raise ImageError("has more parts than any program writes")
        start = end
    return b"".join(kept)


def _bare_jpeg(data: bytes) -> bytes:
    """Blank the names of the tag tables, so that Pillow skips them; refuse endless repetition."""
    parts = re.finditer(rb"\xff[\xc0-\xcf\xdb-\xfe]", data)
    if data.count(b"\xff\xda\0") > _MAX_SCANS or any(islice(parts, _MAX_PARTS, None)):
        raise ImageError("has more parts than any camera writes")
    return re.sub(rb"Exif\0\0|MPF\0(?=II|MM)", lambda name: bytes(len(name[0])), data)


def _bare_gif(data: bytes) -> bytes:
    """Drop the extensions before the first frame, but for the last graphic control."""
    start = 13 + ((6 << (data[10] & 7)) if data[10] & 0x80 else 0)
    head, control = data[:start], b""
    while data[start] == 0x21:
        end = start + 2
        while data[end]:
            end += 1 + data[end]
        control = data[start : end + 1] if data[start + 1] == 0xF9 else control
        start = end + 1
    return head + control + data[data.index(b",", start) :]  # a comma begins a frame


def _bare_tiff(data: bytes) -> bytes:
    """Keep one directory, and of its tags those of the layout; refuse absurd tables and tiles."""
    order = "<" if data[:2] == b"II" else ">"
    kept = {tag: entry for tag, entry in _tags(data).items() if tag in _TIFF_KEEP}
    tile = math.prod(kept[side][1] for side in (322, 323) if side in kept)  # width and length
    if sum(count for count, _, _ in kept.values()) > _MAX_TABLE or tile > MAX_PIXELS:
        raise ImageError("has tables or tiles larger than any picture needs")
    head = data[:4] + struct.pack(order + "I", len(data)) + data[8:]
    table = struct.pack(order + "H", len(kept)) + b"".join(entry for _, _, entry in kept.values())
    return head + table + bytes(4)


def _tags(tiff: bytes) -> dict[int, tuple[int, int, bytes]]:
    """Return tag -> (count, first number, all 12 bytes) from the first directory of a TIFF."""
    order = "<" if tiff[:2] == b"II" else ">"
    (start,) = struct.unpack_from(order + "I", tiff, 4)
    (length,) = struct.unpack_from(order + "H", tiff, start)
    tags = {}
    for at in range(start + 2, start + 2 + 12 * length, 12):
        tag, kind, count = struct.unpack_from(order + "HHI", tiff, at)
        (number,) = struct.unpack_from(order + ("H" if kind == 3 else "I"), tiff, at + 8)
        tags[tag] = count, number, tiff[at : at + 12]
    return tags


_BARE = {"PNG": _bare_png, "JPEG": _bare_jpeg, "GIF": _bare_gif, "TIFF": _bare_tiff}
