"""SYNTHETIC: drawn pictures in the files of CIFAR-100, for when the real set cannot be had.

A superclass is a silhouette; a fine class is a silhouette with one of five surface patterns. Place,
size, tilt, colours, backdrop, blobs, light and noise are random and say nothing about the class.
Labels nest as in the real set (`FINE_TO_COARSE`), so whatever reads the real files reads these.
The pictures are no part of CIFAR-100 and no measure of accuracy on it: every figure obtained from
them is labelled SYNTHETIC.
"""

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt

from resnet_cifar100.constants import FINE_TO_COARSE, IMAGE_SIZE
from resnet_cifar100.storage import write_durably

Floats = npt.NDArray[np.floating]  # float32 throughout
Shape = Callable[[Floats, Floats], Floats]
Point = tuple[float, float]

PICKLE_PROTOCOL = 4  # the newest that stores an array without out-of-band buffers
SPLITS = ("train", "test")  # the position seeds the split's own random stream
CHUNK = 100  # pictures drawn together; more no longer fit the processor's cache

# Pixels, unless another unit is named.
MARGIN = 3.0  # kept free around every silhouette, for random crops
RADIUS = (6.0, 12.5)  # of the circle that holds the silhouette
TILT = np.deg2rad(25.0)  # largest, either way
NUM_BLOBS = 4
BLOB_RADIUS = (1.0, 3.5)
BACKDROP_WAVELENGTH = (12.0, 40.0)

# Fractions of the full range of a channel.
CONTRAST = (0.1, 0.3)  # from dark to middle and from middle to light
CHROMA = (0.03, 0.15)
BLOB_BRIGHTNESS = (0.2, 0.8)
LIGHT = 0.3  # largest change of brightness from the centre to an edge
NOISE = 0.08  # standard deviation

PATTERN_FREQUENCY = (1.8, 2.2)  # periods in a silhouette's radius
PATTERN_SHARPNESS = 2.0

# Pixel centres from the middle of the picture; x to the right, y upwards.
COLUMNS = np.arange(IMAGE_SIZE, dtype=np.float32) - (IMAGE_SIZE - 1) / 2  # (W,)
ROWS = -COLUMNS[:, None]  # (H,1)


# Silhouettes: signed distance to the outline, negative inside, in a frame where each fits the unit
# circle. All but the crescent and the fish are symmetric, and none mirrors another.


def _disc(x: Floats, y: Floats, radius: float | Floats) -> Floats:
    return np.sqrt(x * x + y * y) - radius


def _box(x: Floats, y: Floats, half_width: float, half_height: float) -> Floats:
    return np.maximum(np.abs(x) - half_width, np.abs(y) - half_height)


def _polygon(*right_half: Point) -> Shape:
    """Return the symmetric polygon with this right half, from the top down."""
    left_half = [(-x, y) for x, y in reversed(right_half) if x > 0]
    corners = [*right_half, *left_half]
    edges = list(zip(corners, corners[1:] + corners[:1], strict=True))

    def distance(x: Floats, y: Floats) -> Floats:
        squared = np.full_like(x, np.inf)
        is_inside = np.zeros(x.shape, dtype=bool)
        for (x0, y0), (x1, y1) in edges:
            dx, dy = x1 - x0, y1 - y0
            along = np.clip(((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy), 0, 1)
            squared = np.minimum(squared, (x - x0 - dx * along) ** 2 + (y - y0 - dy * along) ** 2)
            if dy != 0:  # even-odd rule; a level edge is never crossed
                is_inside ^= ((y < y0) != (y < y1)) & (x < x0 + (y - y0) * (dx / dy))
        return np.sqrt(squared) * np.where(is_inside, np.float32(-1), np.float32(1))

    return distance


def _heart(x: Floats, y: Floats) -> Floats:
    point = _polygon((0, 0.55), (0.7, -0.15), (0, -0.85))
    return np.minimum(_disc(np.abs(x) - 0.35, y - 0.2, 0.495), point(x, y))


def _drop(x: Floats, y: Floats) -> Floats:
    point = _polygon((0, 1), (0.537, -0.083))
    return np.minimum(_disc(x, y + 0.35, 0.6), point(x, y))


def _clover(x: Floats, y: Floats) -> Floats:
    petals = np.minimum(_disc(np.abs(x) - 0.54, y, 0.45), _disc(x, np.abs(y) - 0.54, 0.45))
    return np.minimum(petals, _box(x, y, 0.2, 0.2))


def _arch(x: Floats, y: Floats) -> Floats:
    arch: Floats = np.maximum(np.abs(_disc(x, np.maximum(y, 0), 0.52)) - 0.26, -y - 0.6)
    return arch


def _fish(x: Floats, y: Floats) -> Floats:
    body = _disc(x - 0.2, np.abs(y) + 0.5, 0.95)
    tail: Floats = np.maximum(np.abs(y) + (x + 0.3) * 0.8, -x - 0.84)
    return np.minimum(body, tail)


def _mushroom(x: Floats, y: Floats) -> Floats:
    cap: Floats = np.maximum(_disc(x, y + 0.05, 0.92), -y - 0.05)
    return np.minimum(cap, _box(x, y + 0.45, 0.3, 0.45))


def _star_points(inner_radius: float) -> list[Point]:
    """Return the right half of a five-pointed star in the unit circle, from the top down."""
    turns = [(np.pi * k / 5, inner_radius if k % 2 else 1.0) for k in range(5)]
    right_half = [(r * float(np.sin(turn)), r * float(np.cos(turn))) for turn, r in turns]
    return [*right_half, (0.0, -inner_radius)]


# In the order of the superclasses.
SHAPES: dict[str, Shape] = {
    "disc": lambda x, y: _disc(x, y, 0.9),
    "ring": lambda x, y: np.abs(_disc(x, y, 0.7)) - 0.27,
    "square": lambda x, y: _box(x, y, 0.7, 0.7),
    "triangle": _polygon((0, 1), (0.87, -0.5)),
    "star": _polygon(*_star_points(inner_radius=0.48)),
    "cross": lambda x, y: np.minimum(_box(x, y, 0.93, 0.32), _box(x, y, 0.32, 0.93)),
    "crescent": lambda x, y: np.maximum(_disc(x, y, 1), -_disc(x - 0.5, y, 0.75)),
    "heart": _heart,
    "arrow": _polygon((0, 1), (0.8, 0.15), (0.3, 0.15), (0.3, -0.95)),
    "hourglass": _polygon((0.65, 0.75), (0.2, 0), (0.65, -0.75)),
    "drop": _drop,
    "clover": _clover,
    "dome": lambda x, y: np.maximum(_disc(x, y + 0.4, 0.9), -y - 0.4),
    "arch": _arch,
    "house": _polygon((0, 0.95), (0.9, 0.2), (0.62, 0.2), (0.62, -0.78)),
    "tee": lambda x, y: np.minimum(_box(x, y - 0.45, 0.68, 0.28), _box(x, y + 0.22, 0.26, 0.7)),
    "diamond": _polygon((0, 1), (0.55, 0), (0, -1)),
    "fish": _fish,
    "mushroom": _mushroom,
    "dumbbell": lambda x, y: np.minimum(_disc(np.abs(x) - 0.57, y, 0.42), _box(x, y, 0.57, 0.17)),
}

# Ink, positive inside the marks, from one wave across and one up the silhouette.
PATTERNS: dict[str, Shape] = {
    "plain": lambda across, up: np.full_like(across, -1),
    "striped": lambda across, up: across,
    "banded": lambda across, up: up,
    "dotted": lambda across, up: across + up - 0.6,
    "checked": lambda across, up: 2 * across * up,
}


def _uniform(rng: np.random.Generator, low: float, high: float, *shape: int) -> Floats:
    return rng.random(shape, dtype=np.float32) * (high - low) + low


def _colours(levels: Floats, rng: np.random.Generator) -> Floats:
    """Return a colour of any hue for each brightness: (N,) -> (N,3,1,1)."""
    hue = _uniform(rng, 0, 2 * np.pi, len(levels), 1)
    chroma = _uniform(rng, *CHROMA, len(levels), 1)
    thirds = np.arange(3, dtype=np.float32) * (2 * np.pi / 3)
    return (levels[:, None] + chroma * np.cos(hue - thirds))[:, :, None, None]


def _paint(images: Floats, colours: Floats, coverage: Floats) -> None:
    """Lay colours (N,3,1,1) over images (N,3,H,W) in place, as far as coverage (N,H,W) says."""
    images += np.clip(coverage, 0, 1)[:, None] * (colours - images)


def _slope(count: int, rng: np.random.Generator) -> Floats:
    """Return planes that rise by one a pixel in a random direction: (N,H,W)."""
    turn = _uniform(rng, 0, 2 * np.pi, count, 1, 1)
    planes: Floats = np.cos(turn) * COLUMNS + np.sin(turn) * ROWS
    return planes


def _backdrops(levels: Floats, rng: np.random.Generator) -> Floats:
    """Return waves between two colours of one brightness, and blobs: (N,) -> (N,3,H,W)."""
    count = len(levels)
    images = np.empty((count, 3, IMAGE_SIZE, IMAGE_SIZE), np.float32)
    images[:] = _colours(levels, rng)
    frequency = 2 * np.pi / _uniform(rng, *BACKDROP_WAVELENGTH, count, 1, 1)
    phase = _uniform(rng, 0, 2 * np.pi, count, 1, 1)
    wave = np.cos(frequency * _slope(count, rng) + phase)
    _paint(images, _colours(levels, rng), (1 + wave) / 2)
    for _ in range(NUM_BLOBS):
        x, y = _uniform(rng, -IMAGE_SIZE / 2, IMAGE_SIZE / 2, 2, count, 1, 1)
        distance = _disc(COLUMNS - x, ROWS - y, _uniform(rng, *BLOB_RADIUS, count, 1, 1))
        colours = _colours(_uniform(rng, *BLOB_BRIGHTNESS, count), rng)
        _paint(images, colours, 0.5 - distance)
    return images


def _frames(count: int, rng: np.random.Generator) -> tuple[Floats, Floats, Floats]:
    """Return x and y in each silhouette's frame, (N,H,W), and its unit in pixels, (N,1,1)."""
    radius = _uniform(rng, *RADIUS, count, 1, 1)
    tilt = _uniform(rng, -TILT, TILT, count, 1, 1)
    x0, y0 = _uniform(rng, -1, 1, 2, count, 1, 1) * (IMAGE_SIZE / 2 - MARGIN - radius)
    cos, sin = np.cos(tilt) / radius, np.sin(tilt) / radius
    x, y = COLUMNS - x0, ROWS - y0
    return cos * x + sin * y, cos * y - sin * x, radius


def _ink(pattern: Shape, x: Floats, y: Floats, rng: np.random.Generator) -> Floats:
    """Return the coverage of the pattern's marks in the silhouettes' frames: (N,H,W)."""
    frequency = 2 * np.pi * _uniform(rng, *PATTERN_FREQUENCY, len(x), 1, 1)
    phases = _uniform(rng, 0, 2 * np.pi, 2, len(x), 1, 1)
    across, up = np.cos(frequency * x + phases[0]), np.cos(frequency * y + phases[1])
    marks: Floats = np.clip(0.5 + PATTERN_SHARPNESS * pattern(across, up), 0, 1)
    return marks


def _draw(
    shape: Shape, pattern: Shape, count: int, rng: np.random.Generator
) -> npt.NDArray[np.uint8]:
    """Return pictures of one fine class: (N,3,H,W)."""
    # Backdrop, surface and ink are dark, middle and light in any order.
    steps = rng.permuted(np.tile(np.array([-1, 0, 1], np.float32), (count, 1)), axis=1)
    backdrop, surface, ink = 0.5 + steps.T * _uniform(rng, *CONTRAST, count)
    images = _backdrops(backdrop, rng)
    x, y, radius = _frames(count, rng)
    coverage = np.clip(0.5 - shape(x, y) * radius, 0, 1)
    _paint(images, _colours(surface, rng), coverage)
    _paint(images, _colours(ink, rng), coverage * _ink(pattern, x, y, rng))
    light = LIGHT / (IMAGE_SIZE / 2) * _slope(count, rng)
    images *= 1 + light[:, None]
    images += NOISE * rng.standard_normal(images.shape, dtype=np.float32)
    return np.rint(np.clip(images, 0, 1) * 255).astype(np.uint8)


def _fine_classes() -> list[tuple[str, str]]:
    """Return the shape and the pattern of each fine class; siblings take the patterns in turn."""
    shapes = list(SHAPES)
    patterns = {shape: iter(PATTERNS) for shape in shapes}
    return [(shapes[coarse], next(patterns[shapes[coarse]])) for coarse in FINE_TO_COARSE]


def _split(split: str, per_class: int, seed: int) -> dict[bytes, object]:
    """Draw a split in random order, as the official file holds it."""
    rng = np.random.default_rng([seed, SPLITS.index(split)])
    chunks = [
        _draw(SHAPES[shape], PATTERNS[pattern], min(CHUNK, per_class - start), rng)
        for shape, pattern in _fine_classes()
        for start in range(0, per_class, CHUNK)
    ]
    images = np.concatenate(chunks)  # (S,3,H,W), class by class
    order = rng.permutation(len(images))
    fine_labels = (order // per_class).tolist()
    return {
        b"filenames": [b"synthetic_%s_%06d.png" % (split.encode(), i) for i in range(len(order))],
        b"batch_label": b"SYNTHETIC %s batch 1 of 1" % split.encode(),
        b"fine_labels": fine_labels,
        b"coarse_labels": [FINE_TO_COARSE[fine] for fine in fine_labels],
        b"data": images.reshape(len(images), -1)[order],  # (S,3,H,W) -> (S,3*H*W)
    }


def _meta() -> dict[bytes, object]:
    """Return the names of the classes, as the official file holds them."""
    return {
        b"fine_label_names": [f"{shape}_{pattern}".encode() for shape, pattern in _fine_classes()],
        b"coarse_label_names": [shape.encode() for shape in SHAPES],
    }


def write_synthetic(
    folder: Path, *, seed: int = 0, train_per_class: int = 500, test_per_class: int = 100
) -> None:
    """Write `folder` with the files train, test and meta; it appears whole or not at all.

    The same arguments give the same bytes on the same numpy. A folder that holds something stays
    as it is.

    Raises:
        OSError: where the folder cannot be made, or holds something.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as temporary:
        unfinished = Path(temporary) / folder.name
        unfinished.mkdir()
        counts = zip(SPLITS, (train_per_class, test_per_class), strict=True)
        files = {split: _split(split, per_class, seed) for split, per_class in counts}
        files["meta"] = _meta()
        for name, content in files.items():
            write_durably(unfinished / name, pickle.dumps(content, PICKLE_PROTOCOL))
        os.replace(unfinished, folder)
