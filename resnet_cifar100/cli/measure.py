"""Commands that use a trained network: evaluate, predict."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro
from rich.table import Table
from rich.text import Text

from resnet_cifar100.cli.screen import console, say, show_fault
from resnet_cifar100.config import BEST_MODEL, SHIPPED_MODEL, Config
from resnet_cifar100.errors import ConfigError, ImageError

if TYPE_CHECKING:
    from resnet_cifar100.bundle import Bundle


def evaluate(
    checkpoint_path: Path | None = None,
    split: Literal["test", "val", "train"] = "test",
    data_dir: Path | None = None,
    device: str = "auto",
) -> None:
    """Measure top-1, top-5 and loss of a checkpoint on a split of the data it was trained on.

    Args:
        checkpoint_path: A best_model.pth or .safetensors file; by default your own
            checkpoints/best_model.pth, else the weights that come with the repository.
        split: test, or the val or train images of that run.
        data_dir: Folder that holds cifar-100-python; by default the one that the run used.
        device: auto, cpu, cuda, mps.
    """
    from resnet_cifar100.bundle import load_bundle
    from resnet_cifar100.data.cifar100 import load_dataset, training_splits
    from resnet_cifar100.engine.evaluate import evaluate as measure
    from resnet_cifar100.runtime import choose_device

    checkpoint_path = checkpoint_path or default_checkpoint()
    bundle = load_bundle(checkpoint_path)
    config = Config.from_json(bundle.provenance["config"])
    config = dataclasses.replace(config, data_dir=data_dir or config.data_dir)
    target = choose_device(device)
    dataset = load_dataset(config)
    train_split, val_split = training_splits(dataset, config)
    chosen = {"test": dataset.test, "val": val_split, "train": train_split}[split]
    if chosen is None:
        raise ConfigError(
            "--split val needs a run that held images out (train with --val-size 5000)"
        )
    metrics = measure(bundle.to(target).logits, chosen.to(target))
    say(f"{checkpoint_path} on {dataset.title} {split} ({len(chosen.labels):,} images)")
    table = Table()
    for name in ("top-1", "top-5", "loss"):
        table.add_column(name, justify="right")
    table.add_row(f"{metrics.top1:.2%}", f"{metrics.top5:.2%}", f"{metrics.loss:.4f}")
    console.print(table)


def predict(
    images: tyro.conf.Positional[tuple[Path, ...]],
    checkpoint_path: Path | None = None,
    top_k: int = 5,
) -> None:
    """Name what is on pictures: the most probable classes of each, with their probabilities.

    Args:
        images: Picture files (PNG, JPEG, WebP, BMP, GIF, TIFF) of any size.
        checkpoint_path: A best_model.pth or .safetensors file; by default your own
            checkpoints/best_model.pth, else the weights that come with the repository.
        top_k: How many classes to show for each picture.
    """
    from resnet_cifar100.bundle import load_bundle

    if not images:
        raise ConfigError("predict needs at least one picture: predict IMAGE...")
    bundle = load_bundle(checkpoint_path or default_checkpoint())
    if not 1 <= top_k <= len(bundle.fine_names):
        raise ConfigError(f"--top-k must be in 1 to {len(bundle.fine_names)}, got {top_k}")
    if bundle.provenance["dataset"] == "SYNTHETIC":
        say("This model knows SYNTHETIC drawn shapes only, not CIFAR-100.", style="bold yellow")
    refused = [path for path in images if not _predict_one(bundle, path, top_k)]
    if refused:
        raise ImageError(f"{len(refused)} of {len(images)} pictures refused")


def weights(checkpoint_path: Path = BEST_MODEL, out: Path = SHIPPED_MODEL) -> None:
    """Write a checkpoint at half its size: fp16, as .safetensors, with its SHA-256 beside it.

    Args:
        checkpoint_path: A best_model.pth.
        out: The file to write.
    """
    from resnet_cifar100.bundle import load_bundle, save_shipped

    if out.suffix != ".safetensors":
        raise ConfigError(f"--out must be a file name ending in .safetensors, got {out}")
    save_shipped(load_bundle(checkpoint_path), out)
    say(f"{out}, {out.stat().st_size / 1e6:.1f} MB")


def calibrate(held_out: Path, checkpoint_path: Path | None = None) -> None:
    """Fit probabilities and the limit for strange pictures on held-out images, into a checkpoint.

    Args:
        held_out: The best_model.pth of a run with --val-size; its network is measured on the images
            that it never saw.
        checkpoint_path: The file that is given the result, --held-out itself by default. Another
            one should come from the same recipe.
    """
    from resnet_cifar100.analysis.calibration import fit_calibration
    from resnet_cifar100.bundle import load_bundle, save_bundle, save_shipped
    from resnet_cifar100.data.cifar100 import load_dataset, training_splits

    bundle, target = load_bundle(held_out), load_bundle(checkpoint_path or held_out)
    config = Config.from_json(bundle.provenance["config"])
    _, val_split = training_splits(load_dataset(config), config)
    if val_split is None:
        raise ConfigError("--held-out needs a run that held images out (--val-size 5000)")
    if bundle.model_config != target.model_config:
        raise ConfigError("--checkpoint-path must be of the same network as --held-out")
    source = f"fitted on {len(val_split.labels):,} training images held out from "
    source += f"recipe {config.recipe}, seed {config.seed}"
    calibration = fit_calibration(bundle, val_split, source)
    target = dataclasses.replace(target, calibration=calibration)
    path = checkpoint_path or held_out
    (save_shipped if path.suffix == ".safetensors" else save_bundle)(target, path)
    say(f"{path}: temperature {calibration.temperature:.3f}, {source}")


def default_checkpoint() -> Path:
    """Return the user's own best model, else the weights that come with the repository."""
    if BEST_MODEL.exists() or not SHIPPED_MODEL.exists():
        return BEST_MODEL
    say(f"{BEST_MODEL} does not exist, so this uses {SHIPPED_MODEL}.")
    return SHIPPED_MODEL


def _predict_one(bundle: "Bundle", path: Path, top_k: int) -> bool:
    """Print the classes of one picture, or why it is refused; return whether it was not."""
    import torch

    from resnet_cifar100.data.images import load_image

    try:
        pixels = load_image(path)
    except ImageError as error:
        show_fault(str(error))
        return False
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None]  # (32,32,3) -> (1,3,32,32)
    probs, ids = bundle.logits(image).softmax(dim=1)[0].topk(top_k)
    table = Table(title=str(path), title_justify="left", show_header=False)
    for prob, index in zip(probs.tolist(), ids.tolist(), strict=True):
        coarse = bundle.coarse_names[bundle.fine_to_coarse[index]]
        bar = Text("#" * round(20 * prob), style="cyan")
        table.add_row(bundle.fine_names[index], f"{prob:6.1%}", bar, coarse)
    console.print(table)
    return True
