"""The card of an exported file: what it answers, weighs and costs beside the network it is of."""

from resnet_cifar100.bundle import Bundle
from resnet_cifar100.constants import SYNTHETIC
from resnet_cifar100.export.forms import BATCH_SIZE, ROUNDS, Comparison
from resnet_cifar100.export.quantize import CALIBRATION_IMAGES
from resnet_cifar100.markdown import SYNTHETIC_WARNING, code, commit, markdown_table, plain
from resnet_cifar100.runtime import environment

_HEAD = (
    *("Form", "Size", "Top-1", "Same class", "Largest difference", "Images/s"),
    *("One image, p50 ms", "p99 ms"),
)


def render_card(bundle: Bundle, comparison: Comparison) -> str:
    """Return the card of the 8-bit file in Markdown."""
    how = (
        "Statically quantised from the first convolution to the last: weights in int8, of which 7 "
        "bits are used, a scale for each channel; activations in uint8, their ranges from "
        f"{CALIBRATION_IMAGES:,} training images. Temperature and limit for strange pictures are "
        "those of the whole network.\n"
    )
    return _render(bundle, comparison, "in 8-bit integers", [how])


def render_benchmark(bundle: Bundle, comparison: Comparison) -> str:
    """Return the page of `bench inference` in Markdown."""
    return _render(bundle, comparison, "in each form", [])


def comparison_text(comparison: Comparison) -> str:
    """Return the table of the forms, and how it was made."""
    first = comparison.reference
    rows = [
        (
            plain(name),
            f"{comparison.sizes[name] / 1e6:.2f} MB" if name in comparison.sizes else "",
            f"{form.top1:.2%}",
            f"{form.same_top1:,}",
            f"{form.largest_difference:.1g}",
            f"{form.images_per_s:,.0f} ({form.images_per_s / first.images_per_s:.2f})",
            f"{form.p50_ms:.2f} ({first.p50_ms / form.p50_ms:.2f})",
            f"{form.p99_ms:.2f}",
        )
        for name, form in comparison.forms.items()
    ]
    return (
        f"{markdown_table(_HEAD, rows)}\nTop-1 on all {comparison.images:,} test images. Same "
        "class, and largest difference of a probability: from the first form. Images/s in batches "
        f"of {BATCH_SIZE}, and one image alone, again and again: medians and 99th percentile over "
        f"{ROUNDS} rounds in which the forms take turns; in brackets how many times as fast as the "
        "first.\n"
    )


def _render(bundle: Bundle, comparison: Comparison, form: str, how: list[str]) -> str:
    config, stamp = bundle.config, environment()
    title = bundle.provenance["dataset"]
    return "\n".join(
        [
            f"# {plain(config.model)} {form}\n",
            *([SYNTHETIC_WARNING] if title == SYNTHETIC else []),
            f"Recipe {code(config.recipe)}, seed {config.seed}, on {plain(title)}.\n",
            *how,
            comparison_text(comparison),
            f"Measured with commit {commit(stamp)}, torch {stamp['torch']}, on "
            f"{plain(stamp['cpu'])}, {stamp['threads']} threads: {code(stamp['command'])}.\n",
        ]
    )
