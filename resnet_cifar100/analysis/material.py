"""What a report is made from: what there is of a run, and where its figures go."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from torch import Tensor

from resnet_cifar100.analysis.findings import Names
from resnet_cifar100.analysis.predictions import Predictions
from resnet_cifar100.analysis.scores import confusion_matrix, merge_classes
from resnet_cifar100.analysis.theme import THEMES, Draw, save_figure
from resnet_cifar100.bundle import Bundle
from resnet_cifar100.config import Config
from resnet_cifar100.constants import SYNTHETIC
from resnet_cifar100.engine.record import RunRecord
from resnet_cifar100.errors import CheckpointError


@dataclass(frozen=True)
class Evaluation:
    """A network, a split, and what the one says of the other."""

    bundle: Bundle
    title: str  # of the data set that was loaded
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

    @cached_property
    def coarse_confusion(self) -> Tensor:
        """Confusion matrix (G,G) of the superclasses."""
        return merge_classes(self.confusion, self.names.fine_to_coarse, len(self.names.coarse))

    @property
    def superclass_top1(self) -> float:
        """Share of images whose predicted class is in the right superclass."""
        merged = self.coarse_confusion.double()
        return float(merged.trace() / merged.sum())


@dataclass(frozen=True)
class Material:
    """All that is known of a run: its record, its evaluated weights, or both."""

    name: str
    record: RunRecord | None
    evaluation: Evaluation | None
    analysed_with: dict[str, Any]  # versions, hardware, commit and command of this analysis
    with_images: bool = True

    @property
    def title(self) -> str:
        """The data set: CIFAR-100 or SYNTHETIC."""
        known = self.evaluation or self.record
        assert known
        return known.title

    @property
    def config(self) -> Config:
        """The settings of the run."""
        if self.record:
            return self.record.config
        assert self.evaluation
        return self.evaluation.bundle.config

    @property
    def environments(self) -> list[dict[str, Any]]:
        """Versions, hardware, commit and command of each session of the run that is known."""
        if self.record:
            return self.record.environments
        assert self.evaluation
        return [self.evaluation.bundle.provenance["environment"]]


def belongs(record: RunRecord, bundle: Bundle) -> bool:
    """Whether `bundle` holds the weights of that run: same network, settings and result."""
    metrics = bundle.provenance["metrics"]
    config = bundle.config
    if record.result:
        is_same = all(metrics.get(key) == value for key, value in record.result.items())
    else:  # its weights are those of one of its epochs
        is_same = metrics in record.history.epochs
    return (
        record.title == bundle.provenance["dataset"]
        and record.config.model_config == bundle.model_config
        and record.config.seed == config.seed
        and is_same
    )


# What a report consists of; a later one in the same folder replaces all of it.
FILES = (
    *("report.md", "report.html", "metrics.json", "compare.json", "predictions.npz"),
    *("per_class.csv", "per_superclass.csv", "confusion.csv"),
)
FIGURES = (
    *("curves", "superclasses", "superclass-confusion", "confusion", "pairs", "losses"),
    *("answers", "gradcam", "confidence", "corruptions", "filters", "top1"),
)


def clear_report(folder: Path) -> None:
    """Remove an earlier report from `folder`: it may show what the next one is not to show.

    Raises:
        CheckpointError: where nothing can be written there.
    """
    figures = [f"figures/{name}-{theme}.png" for name in FIGURES for theme in THEMES]
    try:
        for name in (*FILES, *figures):
            (folder / name).unlink(missing_ok=True)
        (folder / "figures").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be written to ({error.strerror})") from error


class Figures:
    """The figures of a report: each drawn for light and for dark pages, in a folder beside it."""

    def __init__(self, folder: Path, *, is_synthetic: bool) -> None:
        self.folder = folder
        self.is_synthetic = is_synthetic

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

        def draw_labelled(figure: Figure) -> None:
            draw(figure)
            if self.is_synthetic and SYNTHETIC not in figure.get_suptitle():
                figure.suptitle("SYNTHETIC data, not CIFAR-100")

        assert name in FIGURES, name
        for theme in THEMES:
            path = self.folder / "figures" / f"{name}-{theme}.png"
            save_figure(path, size, draw_labelled, theme, has_photographs=has_photographs)
        return (
            '<picture><source media="(prefers-color-scheme: dark)" '
            f'srcset="figures/{name}-dark.png"><img src="figures/{name}-light.png" '
            f'alt="{escape(alt)}"></picture>\n'
        )
