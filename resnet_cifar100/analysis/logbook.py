"""Published runs: a folder of records/ holds the record of a run and the page made from it."""

import dataclasses
from datetime import date
from pathlib import Path

from resnet_cifar100.analysis.figures import save_curves
from resnet_cifar100.config import Config
from resnet_cifar100.engine.record import load_record
from resnet_cifar100.engine.report import render_markdown
from resnet_cifar100.errors import CheckpointError, ConfigError
from resnet_cifar100.storage import replace_file


def publish_run(run_dir: Path, name: str, records: Path) -> Path:
    """Copy the record of a finished run, its curves and its page to records/DATE_NAME; return that.

    Raises:
        CheckpointError: for a folder without the record of a finished run.
        ConfigError: where a record of this name stands already.
    """
    record = load_record(run_dir)
    if record.status != "finished":
        raise CheckpointError(f"{run_dir} is not finished ({record.status}): no figure to publish")
    out = records / f"{date.today():%Y-%m-%d}_{name}"
    if out.exists():
        raise ConfigError(f"{out} exists already; records are never overwritten")
    record.config = dataclasses.replace(
        record.config,
        **{name: Path(getattr(record.config, name).name) for name in _absolute_paths(record.config)},
    )
    record.save(out)
    save_curves(record, out / "curves.png")
    page = render_markdown(record).replace("## Results", "![Curves](curves.png)\n\n## Results", 1)
    replace_file(out / "README.md", page)
    return out


def _absolute_paths(config: Config) -> list[str]:
    """Return the settings that name a place on the machine of the run, which is nobody's business."""
    names = [field.name for field in dataclasses.fields(config) if field.type is Path]
    return [name for name in names if getattr(config, name).is_absolute()]
