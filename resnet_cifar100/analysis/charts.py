"""Figures of what a network gets right and wrong, drawn from its predictions."""

import itertools
from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from resnet_cifar100.analysis.calibration import calibration_error, confidence_bins
from resnet_cifar100.analysis.findings import Names
from resnet_cifar100.analysis.predictions import Predictions
from resnet_cifar100.analysis.scores import ClassScores, risk_coverage

FILTER_COLUMNS = 12
LABEL_ROOM = 15  # per cent of recall to the left of a dot: else its name would leave the axes
WORTH_A_NUMBER = 1.0  # per cent of a row; smaller shares stay blank


def draw_superclass_matrix(figure: Figure, confusion: Tensor, names: Names) -> None:
    """Draw the confusion (G,G) of superclasses as shares of each row; what is right is bold."""
    axes = figure.subplots()
    shares = 100 * confusion.double() / confusion.sum(1, keepdim=True).clamp(min=1)
    errors = shares.clone().fill_diagonal_(0)
    axes.imshow(errors.numpy(), vmin=0, vmax=max(1.0, float(errors.max())))
    for row in range(len(confusion)):
        for column in range(len(confusion)):
            share = float(shares[row, column])
            if row == column or share >= WORTH_A_NUMBER:
                is_deep = row != column and share > 0.55 * float(errors.max())
                axes.text(
                    column,
                    row,
                    f"{share:.0f}",
                    ha="center",
                    va="center",
                    fontsize=8,
                    color=figure.get_facecolor() if is_deep else None,
                    fontweight="bold" if row == column else None,
                )
    axes.set_xticks(range(len(confusion)), names.coarse, rotation=90)
    axes.set_yticks(range(len(confusion)), names.coarse)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title("Of 100 images of a true superclass, how many are given each; bold: right")


def draw_fine_matrix(figure: Figure, confusion: Tensor, names: Names) -> None:
    """Draw the errors among classes (K,K), with the classes of a superclass side by side."""
    order = sorted(range(len(confusion)), key=lambda fine: (names.fine_to_coarse[fine], fine))
    errors = confusion.clone().fill_diagonal_(0)[order][:, order].double()
    axes = figure.subplots()
    shown = axes.imshow(
        errors.numpy(), vmin=0, vmax=max(1.0, float(errors.max())), interpolation="nearest"
    )
    groups = [names.fine_to_coarse[fine] for fine in order]
    starts = [i for i, group in enumerate(groups) if i == 0 or group != groups[i - 1]]
    for start in starts[1:]:
        axes.axhline(start - 0.5, color="grey", lw=0.4)
        axes.axvline(start - 0.5, color="grey", lw=0.4)
    ends = [*starts[1:], len(order)]
    middles = [(start + end - 1) / 2 for start, end in zip(starts, ends, strict=True)]
    labels = [names.coarse[groups[start]] for start in starts]
    axes.set_xticks(middles, labels, rotation=90, fontsize=9)
    axes.set_yticks(middles, labels, fontsize=9)
    axes.set_xlabel("predicted class, by superclass")
    axes.set_ylabel("true class, by superclass")
    axes.set_title("Errors among the classes; the blocks on the diagonal are within a superclass")
    figure.colorbar(shown, ax=axes, shrink=0.6, label="images")


def draw_superclasses(figure: Figure, scores: ClassScores, names: Names) -> None:
    """Draw the share of each class that is recognised, a row a superclass, the best on top."""
    axes = figure.subplots()
    recall = 100 * scores.recall
    members = {
        coarse: sorted(
            (fine for fine, group in enumerate(names.fine_to_coarse) if group == coarse),
            key=lambda fine: float(recall[fine]),
        )
        for coarse in sorted(set(names.fine_to_coarse))
    }
    rows = sorted(members, key=lambda coarse: float(recall[members[coarse]].mean()))
    for row, coarse in enumerate(rows):
        fine = members[coarse]
        axes.barh(row, float(recall[fine].mean()), color="C0", alpha=0.25, height=0.7)
        axes.plot(recall[fine], [row] * len(fine), "o", ms=5, color="C0")
        for index, side, gap in ((fine[0], "right", -1.2), (fine[-1], "left", 1.2)):
            place = float(recall[index]) + gap
            if side == "right" and place < LABEL_ROOM:
                continue
            axes.text(place, row, names.fine[index], ha=side, va="center", fontsize=8)
    axes.set_yticks(range(len(rows)), [names.coarse[coarse] for coarse in rows])
    axes.set_xlim(0, 112)
    axes.set_xticks(range(0, 101, 20))
    axes.set_xlabel("images recognised, %: a dot a class (weakest and strongest named), bar: mean")
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    axes.set_title("Recall of the classes, by superclass")


def draw_confidence(figure: Figure, predictions: Predictions) -> None:
    """Draw the reliability diagram, the confidence of right and wrong answers, and the risk."""
    reliability, histogram, risk = figure.subplots(1, 3)
    _draw_reliability(reliability, predictions)
    confidence, hits = predictions.confidence, predictions.hits
    histogram.hist(
        [100 * confidence[hits].numpy(), 100 * confidence[~hits].numpy()],
        bins=20,
        range=(0, 100),
        stacked=True,
        color=["C0", "C1"],
        label=["right", "wrong"],
    )
    histogram.set_title("How sure it is")
    histogram.set_xlabel("confidence, %")
    histogram.set_ylabel("images")
    histogram.legend(loc="upper left")
    coverage, share = risk_coverage(confidence, hits)
    risk.plot(100 * coverage, 100 * share, color="C1")
    risk.set_xlim(0, 100)
    risk.set_ylim(bottom=0)
    risk.set_title("Answering only when sure")
    risk.set_xlabel("images answered, the surest first, %")
    risk.set_ylabel("errors among those, %")
    risk.grid()


def _draw_reliability(axes: Axes, predictions: Predictions) -> None:
    curves = [("as trained", predictions.raw_confidence, "C1")]
    if predictions.is_calibrated:
        curves.append(("calibrated", predictions.confidence, "C0"))
    axes.plot([0, 100], [0, 100], color="grey", lw=0.8, ls="--")
    for label, confidence, colour in curves:
        bins = confidence_bins(confidence, predictions.hits)
        filled = bins.images >= 10  # fewer images say little
        error = calibration_error(confidence, predictions.hits)
        axes.plot(
            100 * bins.confidence[filled],
            100 * bins.accuracy[filled],
            "o-",
            ms=4,
            color=colour,
            label=f"{label}: error {error:.1%}",
        )
    axes.set_xlim(0, 100)
    axes.set_ylim(0, 100)
    axes.set_title("Is 70% sure right 70% of the time?")
    axes.set_xlabel("confidence, %")
    axes.set_ylabel("right, %")
    axes.legend(loc="lower right")
    axes.grid()


def draw_corruptions(figure: Figure, curves: Mapping[str, Mapping[int, float]]) -> None:
    """Draw top-1 against severity; curves[name][severity], severity 0 being the clean images."""
    axes = figure.subplots()
    for (name, curve), marker in zip(curves.items(), itertools.cycle("os^D"), strict=False):
        axes.plot(list(curve), [100 * top1 for top1 in curve.values()], f"{marker}-", label=name)
    axes.set_xticks(sorted({severity for curve in curves.values() for severity in curve}))
    axes.set_xlabel("severity (0: as they are)")
    axes.set_ylabel("top-1, %")
    axes.set_ylim(bottom=0)
    axes.set_title("Corrupted pictures")
    axes.legend()
    axes.grid()


def draw_filters(figure: Figure, weight: Tensor) -> None:
    """Draw the filters (D,3,H,W) of a first layer as colours, each scaled to its own range."""
    low, high = weight.amin(dim=(1, 2, 3), keepdim=True), weight.amax(dim=(1, 2, 3), keepdim=True)
    pictures = ((weight - low) / (high - low).clamp(min=1e-12)).permute(0, 2, 3, 1)
    rows = -(-len(pictures) // FILTER_COLUMNS)
    for index, axes in enumerate(figure.subplots(rows, FILTER_COLUMNS, squeeze=False).flat):
        axes.axis("off")
        if index < len(pictures):
            axes.imshow(pictures[index].numpy(), interpolation="nearest")


def filters_size(weight: Tensor) -> tuple[float, float]:
    """Return width and height in inches of the figure of such filters."""
    return 10.0, 0.8 * -(-len(weight) // FILTER_COLUMNS)


def first_filters(model: nn.Module) -> Tensor:
    """Return the weights (D,3,H,W) of the first layer, which looks at colours."""
    first = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    return first.weight.detach().float()
