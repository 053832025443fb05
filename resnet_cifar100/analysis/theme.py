"""How figures look: colours that the colour-blind tell apart, on light and on dark pages."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from cycler import cycler
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from PIL import Image

from resnet_cifar100.storage import replace_file

Draw = Callable[[Figure], None]

# After Okabe and Ito's palette, https://jfly.uni-koeln.de/color/; brighter on dark pages.
_LIGHT = ("#0072b2", "#d55e00", "#009e73", "#aa4499")
_DARK = ("#56b4e9", "#e69f00", "#2fc69b", "#dd8fc0")
_HEAT = {
    "heat-light": ["#ffffff", "#5aa5d6", "#00304d"],
    "heat-dark": ["#12161c", "#2b7cb0", "#d9f0ff"],
}
for _name, _colours in _HEAT.items():
    _map = LinearSegmentedColormap.from_list(_name, _colours)
    mpl.colormaps.register(_map, force=True)  # as importing twice, from a test say, must not fail


def _theme(page: str, ink: str, faint: str, cycle: tuple[str, ...], heat: str) -> dict[str, Any]:
    return {
        "font.size": 10,
        "figure.constrained_layout.h_pad": 0.12,
        "figure.constrained_layout.w_pad": 0.08,
        "text.parse_math": False,  # a name may have dollar signs
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titleweight": "bold",
        "axes.titlesize": 11,
        "axes.prop_cycle": cycler(color=cycle),
        "axes.grid.axis": "both",
        "grid.alpha": 0.6,
        "grid.color": faint,
        "legend.frameon": False,
        "image.cmap": heat,
        **dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), page),
        **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), ink),
        **dict.fromkeys(("axes.edgecolor", "patch.edgecolor"), ink),
    }


THEMES = {
    "light": _theme("#ffffff", "#1d2733", "#d5dae0", _LIGHT, "heat-light"),
    "dark": _theme("#12161c", "#dfe5ec", "#39424e", _DARK, "heat-dark"),
}


def save_figure(
    path: Path,
    size: tuple[float, float],
    draw: Draw,
    theme: str = "light",
    *,
    has_photographs: bool = False,
) -> None:
    """Let `draw` fill a figure of `size` (width, height in inches) and write it as PNG.

    Drawn lines and letters keep 128 colours, which takes a third of the bytes.
    """
    with mpl.rc_context(THEMES[theme]):  # type: ignore[arg-type]
        figure = Figure(figsize=size, dpi=110, layout="constrained")
        draw(figure)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()  # type: ignore[no-untyped-call]  # savefig would lay it out twice
        pixels = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
    picture = Image.fromarray(pixels).convert("RGB")
    if not has_photographs:
        # The usual method of choosing them gives a single dot the colour of another.
        method = Image.Quantize.MAXCOVERAGE
        picture = picture.quantize(128, method, dither=Image.Dither.NONE)
    png = io.BytesIO()
    picture.save(png, "PNG", optimize=True)
    replace_file(path, png.getvalue())
