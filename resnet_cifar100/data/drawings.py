"""A few pictures drawn by code, for those who have no photograph (or no data set) at hand."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SIZE = 512  # drawn at this size, saved at half of it


def write_drawings(folder: Path) -> list[Path]:
    """Write every drawing as a PNG file below `folder`; return the files."""
    paths = []
    for name, draw in DRAWINGS.items():
        image = Image.new("RGB", (SIZE, SIZE), "white")
        draw(image)
        soft = image.filter(ImageFilter.GaussianBlur(2))
        path = folder / f"drawn_{name}.png"
        soft.resize((SIZE // 2, SIZE // 2), Image.Resampling.LANCZOS).save(path)
        paths.append(path)
    return paths


def _orange(image: Image.Image) -> None:
    _ball(image, (256, 268), 190, (245, 140, 20), spots=0.04)
    ImageDraw.Draw(image).ellipse((240, 86, 272, 106), fill=(70, 110, 30))


def _apple(image: Image.Image) -> None:
    _ball(image, (206, 280), 150, (200, 25, 30), spots=0.02)
    _ball(image, (306, 280), 150, (200, 25, 30), spots=0.02)
    pen = ImageDraw.Draw(image)
    pen.line((256, 160, 262, 80), fill=(90, 55, 25), width=14)
    pen.ellipse((266, 78, 360, 122), fill=(80, 150, 40))


def _sea(image: Image.Image) -> None:
    _gradient(image, (0, 230), (110, 165, 225), (215, 230, 240))
    _gradient(image, (230, 512), (50, 105, 150), (20, 60, 105))
    _ripples(image, (230, 512), 18)


def _plain(image: Image.Image) -> None:
    _gradient(image, (0, 270), (80, 145, 225), (200, 222, 242))
    _gradient(image, (270, 512), (150, 165, 75), (95, 125, 40))
    _ripples(image, (270, 512), 12)


def _cloud(image: Image.Image) -> None:
    _gradient(image, (0, 512), (45, 105, 195), (135, 180, 230))
    puffs = [(150, 290, 80), (230, 240, 105), (330, 260, 90), (390, 310, 65), (270, 315, 95)]
    layer = Image.new("L", image.size, 0)
    for x, y, radius in puffs:
        ImageDraw.Draw(layer).ellipse((x - radius, y - radius, x + radius, y + radius), fill=245)
    image.paste((250, 250, 252), mask=layer.filter(ImageFilter.GaussianBlur(18)))


def _sunflower(image: Image.Image) -> None:
    _gradient(image, (0, 512), (90, 160, 225), (70, 130, 60))
    pen = ImageDraw.Draw(image)
    pen.line((256, 300, 262, 512), fill=(60, 110, 40), width=22)
    for petal in range(22):
        angle = 2 * math.pi * petal / 22
        x, y = 256 + 125 * math.cos(angle), 235 + 125 * math.sin(angle)
        side = (28 * math.sin(angle), -28 * math.cos(angle))
        tip = (256 + 215 * math.cos(angle), 235 + 215 * math.sin(angle))
        root = (256 + 70 * math.cos(angle), 235 + 70 * math.sin(angle))
        outline = [root, (x + side[0], y + side[1]), tip, (x - side[0], y - side[1])]
        pen.polygon(outline, fill=(250, 200 - 20 * (petal % 2), 20))
    _ball(image, (256, 235), 85, (95, 55, 20), spots=0.2)


def _rocket(image: Image.Image) -> None:
    _gradient(image, (0, 512), (30, 60, 120), (150, 185, 225))
    pen = ImageDraw.Draw(image)
    pen.polygon([(256, 30), (296, 120), (296, 350), (216, 350), (216, 120)], fill=(235, 235, 238))
    pen.polygon([(256, 30), (296, 120), (216, 120)], fill=(190, 40, 35))
    pen.polygon([(216, 270), (216, 360), (170, 380)], fill=(190, 40, 35))
    pen.polygon([(296, 270), (296, 360), (342, 380)], fill=(190, 40, 35))
    pen.polygon([(226, 352), (286, 352), (256, 470)], fill=(255, 190, 60))
    pen.ellipse((150, 430, 362, 560), fill=(225, 222, 220))


def _letters(image: Image.Image) -> None:
    pen = ImageDraw.Draw(image)
    for row in range(9):
        for column in range(13 - row % 3):
            x, y = 40 + 34 * column, 40 + 50 * row
            height = 12 + 14 * ((row * 7 + column * 5) % 2)
            pen.rectangle((x, y + 30 - height, x + 20, y + 30), outline="black", width=5)


def _ball(
    image: Image.Image,
    centre: tuple[int, int],
    radius: int,
    colour: tuple[int, int, int],
    spots: float,
) -> None:
    """Draw a ball lit from the upper left; `spots` is how uneven its skin is."""
    pixels = np.array(image, np.float32)
    y, x = np.mgrid[:SIZE, :SIZE].astype(np.float32)
    across, down = (x - centre[0]) / radius, (y - centre[1]) / radius
    inside = across**2 + down**2 <= 1
    height = np.sqrt(np.clip(1 - across**2 - down**2, 0, 1))
    light = 0.35 + 0.75 * np.clip(0.6 * height - 0.45 * across - 0.55 * down, 0, 1)
    light += spots * np.random.default_rng(0).standard_normal(light.shape)
    shine = 120 * np.clip(1 - ((across + 0.4) ** 2 + (down + 0.45) ** 2) / 0.06, 0, 1)
    ball = np.asarray(colour, np.float32) * light[..., None] + shine[..., None]
    image.paste(
        Image.fromarray(np.where(inside[..., None], ball, pixels).clip(0, 255).astype("u1"))
    )


def _gradient(
    image: Image.Image,
    rows: tuple[int, int],
    top: tuple[int, int, int],
    bottom: tuple[int, int, int],
) -> None:
    """Fill the rows from one colour to another."""
    share = np.linspace(0, 1, rows[1] - rows[0])[:, None, None]
    colours = np.asarray(top) * (1 - share) + np.asarray(bottom) * share
    strip = np.broadcast_to(colours, (rows[1] - rows[0], SIZE, 3)).astype(np.uint8)
    image.paste(Image.fromarray(strip), (0, rows[0]))


def _ripples(image: Image.Image, rows: tuple[int, int], strength: float) -> None:
    """Give the rows a texture of flat streaks, as water and grass have."""
    pixels = np.array(image, np.float32)
    count = rows[1] - rows[0]
    noise = np.random.default_rng(0).standard_normal((count, SIZE // 16)).repeat(16, axis=1)
    smooth = (noise + np.roll(noise, 5, axis=1) + np.roll(noise, 11, axis=1)) / 3
    pixels[rows[0] : rows[1]] += strength * smooth[..., None]
    image.paste(Image.fromarray(pixels.clip(0, 255).astype(np.uint8)))


DRAWINGS: dict[str, Callable[[Image.Image], None]] = {
    "orange": _orange,
    "apple": _apple,
    "sea": _sea,
    "plain": _plain,
    "cloud": _cloud,
    "sunflower": _sunflower,
    "rocket": _rocket,
    "letters": _letters,
}
