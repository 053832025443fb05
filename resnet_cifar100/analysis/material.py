"""What a report is made from: what there is of a run, and where its figures go."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

from torch import Tensor

from resnet_cifar100.analysis.findings import Names
from resnet_cifar100.analysis.predictions import Predictions
from resnet_cifar100.analysis.scores import confusion_matrix
from resnet_cifar100.analysis.theme import THEMES, Draw, save_figure
from resnet_cifar100.bundle import Bundle
from resnet_cifar100.config import Config
from resnet_cifar100.engine.record import RunRecord


@dataclass(frozen=True)
class Evaluation:
    """A network, a split, and what the one says of the other."""

    bundle: Bundle
    split: str
    images: Tensor  # uint8 (N,3,H,W)
    predictions: Predictions
    corruptions: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    """Top-1 by name and severity, of `corrupted` images; severity 0 is the images as they are."""
    corrupted: int = 0

    @cached_property
    def names(self) -> Names:
        """Names of the classes."""
        bundle = self.bundle
        return Names(bundle.fine_names, bundle.coarse_names, bundle.fine_to_coarse)

    @cached_property
    def confusion(self) -> Tensor:
        """Confusion matrix (K,K), true classes in rows."""
        predictions = self.predictions
        return confusion_matrix(predictions.predicted, predictions.labels, len(self.names.fine))


@dataclass(frozen=True)
class Material:
    """All that is known of a run: its record, its evaluated weights, or both."""

    name: str
    record: RunRecord | None
    evaluation: Evaluation | None
    with_images: bool = True

    @property
    def title(self) -> str:
        """The data set: CIFAR-100 or SYNTHETIC."""
        return self.record.title if self.record else str(self._provenance["dataset"])

    @property
    def config(self) -> Config:
        """The settings of the run."""
        return self.record.config if self.record else Config.from_json(self._provenance["config"])

    @property
    def environments(self) -> list[dict[str, Any]]:
        """Versions, hardware, commit and command of each session of the run that is known."""
        return self.record.environments if self.record else [self._provenance["environment"]]

    @property
    def _provenance(self) -> dict[str, Any]:
        assert self.evaluation
        return self.evaluation.bundle.provenance


class Figures:
    """The figures of a report: each drawn for light and for dark pages, in a folder beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(
        self,
        name: str,
        alt: str,
        size: tuple[float, float],
        draw: Draw,
        *,
        has_photographs: bool = False,
    ) -> str:
        """Draw `name` and return the Markdown that shows it; `alt` says in words what it shows."""
        for theme in THEMES:
            path = self.folder / "figures" / f"{name}-{theme}.png"
            save_figure(path, size, draw, theme, has_photographs=has_photographs)
        return (
            '<picture><source media="(prefers-color-scheme: dark)" '
            f'srcset="figures/{name}-dark.png"><img src="figures/{name}-light.png" '
            f'alt="{escape(alt)}"></picture>\n'
        )
