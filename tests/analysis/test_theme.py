import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from resnet_cifar100.analysis.theme import THEMES, save_figure


@pytest.mark.parametrize("theme", THEMES)
def test_a_dot_keeps_its_colour_beside_what_is_large(theme, tmp_path):
    colours = [entry["color"] for entry in THEMES[theme]["axes.prop_cycle"]]

    def draw(figure):
        axes = figure.subplots()
        axes.fill_between([0, 1], [0, 1], color=colours[-1], alpha=0.15)
        for place, colour in enumerate(colours):
            axes.plot([place / 4], [place / 4], "o", ms=3, color=colour)
        axes.set_title("Letters in many shades")

    save_figure(tmp_path / "figure.png", (12, 7), draw, theme)
    pixels = np.asarray(Image.open(tmp_path / "figure.png").convert("RGB")).astype(float)
    for colour in colours:
        assert np.abs(pixels - 255 * np.array(to_rgb(colour))).max(axis=2).min() <= 16, colour
