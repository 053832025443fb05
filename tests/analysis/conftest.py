"""What tests of reports share."""

from pathlib import Path

import pytest
from PIL import Image


@pytest.fixture
def blank_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """For what is not about what figures show: to draw them takes most of the time."""

    def save_blank(path: Path, *_given: object, **_named: object) -> None:
        Image.new("RGB", (1, 1)).save(path)

    monkeypatch.setattr("resnet_cifar100.analysis.material.save_figure", save_blank)
