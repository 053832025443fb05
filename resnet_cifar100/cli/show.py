"""Commands that show what there is: networks, sample pictures, the log of a run."""

import sys
from pathlib import Path
from typing import Literal

import tyro
from rich.table import Table

from resnet_cifar100.cli.screen import console, say
from resnet_cifar100.config import SAMPLES, Config, ModelConfig
from resnet_cifar100.errors import ConfigError


def info(model: tyro.conf.Positional[str | None] = None) -> None:
    """List the networks, or print one network's stages, parameters and multiply-adds.

    Args:
        model: Name of the network, for example resnet44v2.
    """
    from resnet_cifar100.engine.log_page import PART_HEAD, part_rows
    from resnet_cifar100.models.factory import MODELS
    from resnet_cifar100.models.summary import summarize

    if model is None:
        table = Table("Network", "Parameters", "Multiply-adds", title="Networks at 32x32 pixels")
        for name in MODELS:
            summary = summarize(ModelConfig(name=name))
            table.add_row(name, f"{summary.parameters:,}", f"{summary.multiply_adds / 1e6:,.1f} M")
        console.print(table)
        return
    summary = summarize(ModelConfig(name=model))
    table = Table(*PART_HEAD, title=model)
    for row in part_rows(summary.parts):
        table.add_row(*row)
    table.add_section()
    total = f"{summary.multiply_adds / 1e6:,.2f} M"
    table.add_row("total", "", "", f"{summary.parameters:,}", total)
    console.print(table)
    if model in NAMES_EXPLAINED:
        say(NAMES_EXPLAINED[model])


NAMES_EXPLAINED = {
    "resnet44v2": "These are the stages of the document that this project grew from, 50 layers. "
    'Its "~2.7M" parameters and its name "ResNet44" fit resnet44v2_slim, without stage 4.',
    "resnet44v2_slim": 'These are the "~2.7M" parameters and the 44 layers (6 x 7 + 2) of the '
    "document that this project grew from. Its stages are four: resnet44v2.",
}


def samples(
    out: Path = SAMPLES,
    per_class: int = 1,
    seed: int = 0,
    dataset: Literal["auto", "cifar100", "synthetic"] = "cifar100",
    data_dir: Path = Path("data"),
) -> None:
    """Write labelled sample pictures of the test set as PNG files, with an index.

    Args:
        out: Folder to write to.
        per_class: Pictures of each of the 100 classes, 1 to 100.
        seed: Which pictures.
        dataset: cifar100, synthetic, or auto for whichever can be had.
        data_dir: Folder that holds cifar-100-python.
    """
    from resnet_cifar100.data.cifar100 import load_dataset
    from resnet_cifar100.data.samples import write_samples

    data = load_dataset(Config(dataset=dataset, data_dir=data_dir))
    index = write_samples(data, out, per_class=per_class, seed=seed)
    say(f"{100 * per_class} pictures of the {data.title} test set in {out}/, listed in {index}")


def log(runs: tyro.conf.Positional[tuple[Path, ...]], write: bool = False) -> None:
    """Print the Markdown log of runs, rendered from their records.

    Args:
        runs: One or more folders of runs, under checkpoints/ or records/.
        write: Write each to README.md in its folder instead.
    """
    from resnet_cifar100.analysis.logbook import write_page
    from resnet_cifar100.engine.log_page import render_markdown
    from resnet_cifar100.engine.record import load_record

    if not runs:
        raise ConfigError("name at least one folder of a run, under checkpoints/ or records/")
    for run in runs:
        if write:
            write_page(run)
        else:
            sys.stdout.write(render_markdown(load_record(run)))


def record(run: tyro.conf.Positional[Path], name: str, records: Path = Path("records")) -> None:
    """Publish a finished run: its record, curves and page, in a dated folder under records/.

    Args:
        run: Folder of a run, under checkpoints/.
        name: What to call it, in a few words joined by dashes.
        records: Where the records are.
    """
    from resnet_cifar100.analysis.logbook import publish_run

    say(f"published as {publish_run(run, name, records)}")
