"""Commands that report on runs: analyze, compare."""

from pathlib import Path
from typing import Literal

import tyro
from rich.table import Table
from rich.text import Text

from resnet_cifar100.cli.measure import default_checkpoint
from resnet_cifar100.cli.screen import console, say
from resnet_cifar100.config import BEST_MODEL
from resnet_cifar100.constants import SYNTHETIC
from resnet_cifar100.errors import ConfigError
from resnet_cifar100.markdown import filled_columns


def analyze(
    path: tyro.conf.Positional[Path | None] = None,
    record: Path | None = None,
    out: Path | None = None,
    split: Literal["test", "val", "train"] = "test",
    images: bool = True,
    corruption_images: int = 1000,
    data_dir: Path | None = None,
    device: str = "auto",
) -> None:
    """Evaluate a network once and write a report with figures: Markdown, HTML, JSON and CSV.

    Args:
        path: A best_model.pth or .safetensors file, or the folder of a run; by default your own
            checkpoints/best_model.pth, else the weights that come with the repository.
        record: Folder of the run that made the weights, where it is not beside them.
        out: Folder to write to; by default reports/ and the name of the file or the run's folder,
            after that of the folder above it unless one of the two is checkpoints or records.
        split: test, or the val or train images of that run.
        images: Show pictures of the data set. Leave them out of what you publish.
        corruption_images: Images that are corrupted with noise, blur, low contrast and JPEG;
            at least one of each class, and 0 leaves this out.
        data_dir: Folder that holds cifar-100-python; by default the one that the run used.
        device: auto, cpu, cuda, mps.
    """
    from resnet_cifar100.analysis.analyze import Options
    from resnet_cifar100.analysis.analyze import analyze as write_report
    from resnet_cifar100.analysis.report import glance
    from resnet_cifar100.runtime import choose_device, keep_freed_memory

    if corruption_images < 0:
        raise ConfigError(f"--corruption-images must be 0 or more, got {corruption_images}")
    keep_freed_memory()
    path = path or default_checkpoint()
    out = out or _default_out(path)
    options = Options(
        split=split,
        data_dir=data_dir,
        device=choose_device(device),
        with_images=images,
        corrupted=corruption_images,
    )
    material = write_report(path, record, out, options, say)
    if material.title == SYNTHETIC:
        say("SYNTHETIC data: none of these figures says anything about CIFAR-100.", "bold yellow")
    for metric, value in glance(material):
        say(f"  {metric:<20} {value}")
    say(f"Open {out / 'report.html'} in a browser; {out / 'report.md'} is the same as Markdown.")


def _default_out(path: Path) -> Path:
    """Return the folder for a report on a file or a run: of two runs called seed0 two folders."""
    if path.is_file() and path.stem != BEST_MODEL.stem:
        return Path("reports", path.stem)
    folder = path.resolve() if path.is_dir() else path.resolve().parent
    is_telling = {folder.name, folder.parent.name} & {"checkpoints", "records"}
    return Path("reports", "" if is_telling else folder.parent.name, folder.name)


def compare(
    runs: tyro.conf.Positional[tuple[Path, ...]], out: Path = Path("reports/compare")
) -> None:
    """Set runs side by side: settings that differ, results over seeds, curves, significance.

    Args:
        runs: Two or more folders of runs, under checkpoints/ or records/. Those that differ in
            their seeds alone count as one experiment; without a finished epoch they are left out.
        out: Folder to write to; an earlier comparison there is replaced.
    """
    from resnet_cifar100.analysis.compare import cautions, group_rows
    from resnet_cifar100.analysis.compare import compare as write_comparison

    groups, left_out = write_comparison(runs, out)
    if groups[0].runs[0].record.title == SYNTHETIC:
        say("SYNTHETIC data: none of these figures says anything about CIFAR-100.", "bold yellow")
    head, rows = filled_columns(group_rows(groups))
    table = Table()
    for index, name in enumerate(head):
        table.add_column(name, justify="right" if index else "left")
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)
    for caution in [*left_out, *cautions(groups)]:
        say(caution)
    say(f"Open {out / 'report.html'} in a browser; {out / 'report.md'} is the same as Markdown.")
