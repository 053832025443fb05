"""Published runs: a folder of records/ holds the record of a run and the page made from it."""

import re
from datetime import date
from pathlib import Path

from resnet_cifar100.analysis.figures import save_curves
from resnet_cifar100.engine.log_page import render_markdown
from resnet_cifar100.engine.record import load_record
from resnet_cifar100.errors import CheckpointError, ConfigError
from resnet_cifar100.storage import replace_file


def publish_run(run_dir: Path, name: str, records: Path) -> Path:
    """Copy the record of a finished run, its curves and its page to records/DATE_NAME; return that.

    Raises:
        CheckpointError: for a folder without the record of a finished run.
        ConfigError: for a name that is none, and where a record of it stands already.
    """
    if not re.fullmatch(r"[A-Za-z0-9]+(-[A-Za-z0-9]+)*", name):
        raise ConfigError(f"--name must be a few words joined by dashes, got {name!r}")
    record = load_record(run_dir)
    if record.status != "finished":
        raise CheckpointError(f"{run_dir} is not finished ({record.status}): no figure to publish")
    out = records / f"{date.today():%Y-%m-%d}_{name}"
    if out.exists():
        raise ConfigError(f"{out} exists already; records are never overwritten")
    record.config = record.config.without_folders()
    record.save(out)
    save_curves(record, out / "curves.png")
    write_page(out)
    return out


def write_page(folder: Path) -> None:
    """Write README.md of a published run, rendered from the record beside it.

    Raises:
        CheckpointError: where `folder` holds no record of a run.
    """
    page = render_markdown(load_record(folder))
    if (folder / "curves.png").exists():
        page = page.replace("## Results", "![Curves](curves.png)\n\n## Results", 1)
    replace_file(folder / "README.md", page)
