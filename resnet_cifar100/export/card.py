"""The card of an exported file: what it answers, weighs and costs beside the network it is of."""

from collections.abc import Mapping

from resnet_cifar100.bundle import Bundle
from resnet_cifar100.config import Config
from resnet_cifar100.engine.report import SYNTHETIC_WARNING, code, markdown_table, plain
from resnet_cifar100.export.forms import BATCH_SIZE, ROUNDS, Form
from resnet_cifar100.export.quantize import CALIBRATION_IMAGES
from resnet_cifar100.runtime import environment

HEAD = (
    *("Form", "Size", "Top-1", "Same class", "Largest difference", "Images/s"),
    *("One image, p50 ms", "p99 ms"),
)
HOW = (
    "Same class, and largest difference of a probability: from the first form. Images/s in batches "
    f"of {BATCH_SIZE}, and one image alone: medians and 99th percentile over {ROUNDS} rounds in "
    "which the forms take turns; in brackets how many times as fast as the first."
)


def render_card(
    bundle: Bundle, forms: Mapping[str, Form], sizes: Mapping[str, int], images: int
) -> str:
    """Return the card in Markdown; the first of `forms` is what the others are compared with."""
    config = Config.from_json(bundle.provenance["config"])
    title, stamp = plain(bundle.provenance["dataset"]), environment()
    return "\n".join(
        [
            f"# {plain(config.model)} in 8-bit integers\n",
            *([SYNTHETIC_WARNING] if title == "SYNTHETIC" else []),
            f"Recipe {code(config.recipe)}, seed {config.seed}, on {title}. Statically quantised: "
            "weights in int8, a scale for each channel, activations in uint8, their ranges from "
            f"{CALIBRATION_IMAGES} training images.\n",
            forms_table(forms, sizes),
            f"Top-1 on all {images:,} test images. {HOW}\n",
            f"Measured with commit {code(str(stamp['commit'])[:10])}, torch {stamp['torch']}, on "
            f"{plain(stamp['cpu'])}, {stamp['threads']} threads: {code(stamp['command'])}.\n",
        ]
    )


def forms_table(forms: Mapping[str, Form], sizes: Mapping[str, int]) -> str:
    """Return the table of forms; `sizes` are in bytes, and `HOW` says how it was made."""
    first = next(iter(forms.values()))
    rows = [
        (
            plain(name),
            f"{sizes[name] / 1e6:.2f} MB" if name in sizes else "",
            f"{form.top1:.2%}",
            f"{form.same_top1:,}",
            f"{form.largest_difference:.1g}",
            f"{form.images_per_s:,.0f} ({form.images_per_s / first.images_per_s:.2f})",
            f"{form.p50_ms:.2f} ({first.p50_ms / form.p50_ms:.2f})",
            f"{form.p99_ms:.2f}",
        )
        for name, form in forms.items()
    ]
    return markdown_table(HEAD, rows)
