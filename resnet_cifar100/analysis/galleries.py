"""Figures that show pictures of the data set: never for a page that is published."""

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from resnet_cifar100.analysis.predictions import Predictions

COLUMNS = 8


class Tile(NamedTuple):
    """A picture uint8 (3,H,W) with what stands below it; `heat` (H,W) in 0..1 lies over it."""

    image: Tensor
    caption: str
    is_right: bool | None = None
    heat: Tensor | None = None


def tile_of(
    predictions: Predictions, images: Tensor, names: Sequence[str], index: int, note: str = ""
) -> Tile:
    """Return image `index` with its label, and with the prediction where that is another."""
    label = names[int(predictions.labels[index])]
    predicted = names[int(predictions.predicted[index])]
    is_right = bool(predictions.hits[index])
    verdict = "" if is_right else f"\n→ {predicted}"
    caption = f"{label}{verdict} {float(predictions.confidence[index]):.0%}{note}"
    return Tile(images[index], caption, is_right)


def gallery_size(tiles: Sequence[Tile]) -> tuple[float, float]:
    """Return width and height in inches of a gallery."""
    return 12.0, 2.05 * -(-len(tiles) // COLUMNS)


def draw_gallery(figure: Figure, tiles: Sequence[Tile]) -> None:
    """Draw tiles in rows; the frame of a wrong answer is orange."""
    rows = -(-len(tiles) // COLUMNS)
    for index, axes in enumerate(figure.subplots(rows, COLUMNS, squeeze=False).flat):
        if index < len(tiles):
            _draw_tile(axes, tiles[index])
        else:
            axes.axis("off")


def _draw_tile(axes: Axes, tile: Tile) -> None:
    axes.imshow(tile.image.permute(1, 2, 0).numpy(), interpolation="nearest")
    if tile.heat is not None:
        heat = tile.heat.numpy()
        axes.imshow(colormaps["inferno"](heat), alpha=0.65 * heat, interpolation="bilinear")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_xlabel(tile.caption, fontsize=9.5)
    for spine in axes.spines.values():
        spine.set_visible(tile.is_right is False)
        spine.set_color("C1")
        spine.set_linewidth(2.5)
