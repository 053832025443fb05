"""The command that trains."""

import argparse
import dataclasses
import importlib.util
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import tyro
from rich.table import Table

from resnet_cifar100.cli.screen import console, python_command, say
from resnet_cifar100.config import BEST_MODEL, SAMPLES, Config, without_secrets
from resnet_cifar100.constants import SYNTHETIC
from resnet_cifar100.errors import ConfigError, InterruptedRunError
from resnet_cifar100.limits import idle_settings
from resnet_cifar100.recipes import create_recipe, shortened

if TYPE_CHECKING:
    from resnet_cifar100.engine.record import RunRecord


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainFlags(Config):
    """Train a network, or resume a run. Every setting of the recipe can be set by its flag."""

    resume: bool = False
    """Go on from the last good state of the newest unfinished run, or of the one in --run-dir."""
    run_dir: Path | None = None
    """Folder of the run; by default a new one beside --checkpoint-path."""


def train(argv: Sequence[str]) -> None:
    """Train a network by recipe (README lists them), or --resume a run."""
    config, given_dir = training_settings(argv)
    import torch

    from resnet_cifar100.analysis.figures import save_curves
    from resnet_cifar100.data.augment import Augment
    from resnet_cifar100.data.cifar100 import load_dataset
    from resnet_cifar100.engine.distill import check_teacher
    from resnet_cifar100.engine.runs import new_run_dir
    from resnet_cifar100.engine.trainer import fit
    from resnet_cifar100.models.summary import check_image_sizes
    from resnet_cifar100.parallel import is_main_process
    from resnet_cifar100.runtime import choose_device

    choose_device(config.device)  # what is wrong is refused before data is fetched
    Augment(config.augment)
    if config.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise ConfigError("--tensorboard needs the package: pip install tensorboard")
    check_teacher(config)
    check_image_sizes(config)
    dataset = load_dataset(config)
    if dataset.notice:
        say(dataset.notice, style="bold yellow")
    is_synthetic = dataset.title == SYNTHETIC
    config = dataclasses.replace(
        config,
        dataset="synthetic" if is_synthetic else "cifar100",
        data_url=without_secrets(config.data_url),
    )
    run_dir = given_dir or new_run_dir(config)
    try:
        record = fit(config, dataset, run_dir, console)
    except torch.OutOfMemoryError as error:
        raise ConfigError(
            f"the GPU ran out of memory: try a --batch-size smaller than {config.batch_size}"
        ) from error
    except InterruptedRunError as error:
        folder = shlex.quote(str(run_dir))
        advice = f"Go on with: {python_command()} train.py --resume --run-dir {folder}"
        raise InterruptedRunError(f"{error}. {advice}", error.exit_code) from error
    if is_main_process():
        save_curves(record, run_dir / "curves.png")
        _show_result(record, run_dir)


def training_settings(argv: Sequence[str]) -> tuple[Config, Path | None]:
    """Return the settings that the flags ask for, and the folder of the run if it has one already.

    Flags override the recipe; with --resume they override what the run was started with.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--recipe")
    first.add_argument("--epochs", default="")
    first.add_argument("--resume", action="store_true")
    first.add_argument("--run-dir", "--run_dir", type=Path)
    first.add_argument("--checkpoint-path", "--checkpoint_path", type=Path, default=BEST_MODEL)
    asked, _ = first.parse_known_args(argv)
    run_dir: Path | None = asked.run_dir
    is_taken = run_dir is not None and (run_dir / "config.json").exists()
    if asked.resume and (is_taken or run_dir is None):
        from resnet_cifar100.engine.runs import newest_run_dir, recorded_config

        run_dir = run_dir or newest_run_dir(asked.checkpoint_path.parent)
        base = recorded_config(run_dir)
    elif is_taken:
        raise ConfigError(f"--run-dir {run_dir} already holds a run; add --resume to go on with it")
    else:
        if asked.resume:
            say(f"Nothing to resume in {run_dir}: starting a new run there.")
        base = _recipe(asked.recipe, argv)
        if asked.epochs.isdecimal() and 0 < int(asked.epochs) < base.epochs:
            base = shortened(base, int(asked.epochs))
    values = {field.name: getattr(base, field.name) for field in dataclasses.fields(base)}
    default = TrainFlags(**values, resume=asked.resume, run_dir=run_dir)
    flags = tyro.cli(TrainFlags, default=default, args=argv, prog="python train.py")
    config = Config(**{name: getattr(flags, name) for name in values})
    for name, needed in idle_settings(config).items():
        if getattr(config, name) not in (getattr(base, name), getattr(Config, name)):
            say(f"--{name.replace('_', '-')} has no effect in this run: it needs {needed}.")
    return config, run_dir


def _recipe(name: str | None, argv: Sequence[str]) -> Config:
    """Return the named recipe, else the one for this machine, and say which and why."""
    if name:
        return create_recipe(name)
    if "-h" in argv or "--help" in argv:
        return create_recipe("reference")
    import torch

    if torch.cuda.is_available():
        say("Recipe reference, because this machine has a CUDA GPU. Others: --recipe NAME.")
        return create_recipe("reference")
    say(
        "Recipe quick, because this machine has no CUDA GPU: a small network in minutes. "
        "75.4 to 75.7% took 6 to 25 minutes on two cores: --recipe fast. "
        "The document's 100 epochs, hours to days on a CPU: --recipe reference."
    )
    return create_recipe("quick")


def _show_result(record: "RunRecord", run_dir: Path) -> None:
    from resnet_cifar100.engine.log_page import result_rows

    config = record.config
    table = Table(title=f"{config.model} on {record.title}, recipe {config.recipe}")
    table.add_column("Metric")
    table.add_column("Value", justify="right")
    for metric, value in result_rows(record):
        table.add_row(metric.replace("**", ""), value.replace("**", ""))
    console.print(table)
    for name, path in [
        ("best model", config.checkpoint_path),
        ("log", config.log_file),
        ("curves", run_dir / "curves.png"),
        ("the whole run", run_dir),
    ]:
        say(f"  {name:<14} {path}")
    say("Next:")
    python = python_command()
    flags = " --dataset synthetic" if record.title == SYNTHETIC else ""
    if config.data_dir != Path("data"):
        flags += f" --data-dir {shlex.quote(str(config.data_dir))}"
    weights, folder = shlex.quote(str(config.checkpoint_path)), shlex.quote(str(run_dir))
    calibrate = f"{python} -m resnet_cifar100 calibrate --held-out {weights}"
    for command in [
        f"{python} -m resnet_cifar100 evaluate --checkpoint-path {weights}",
        *([calibrate] if config.val_size else []),
        f"{python} -m resnet_cifar100 analyze {folder}",
        f"{python} test_data_setup/get_test_images.py{flags}",
        f"{python} -m resnet_cifar100 predict {SAMPLES}/*.png --checkpoint-path {weights}",
        f"{python} huggingface_app/app.py --checkpoint-path {weights}",
    ]:
        say(f"  {command}")
