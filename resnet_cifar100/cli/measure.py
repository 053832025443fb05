"""Commands that use a trained network: evaluate, predict, calibrate."""

import dataclasses
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro
from rich.table import Table
from rich.text import Text

from resnet_cifar100.cli.screen import console, say, show_fault, speak_aside, write_json
from resnet_cifar100.config import BEST_MODEL, SHIPPED_MODEL
from resnet_cifar100.constants import SYNTHETIC
from resnet_cifar100.errors import ConfigError, ImageError

if TYPE_CHECKING:
    from torch import Tensor

    from resnet_cifar100.serve.predictor import Answer, Predictor


def evaluate(
    checkpoint_path: Path | None = None,
    split: Literal["test", "val", "train"] = "test",
    data_dir: Path | None = None,
    device: str = "auto",
    tta: bool = False,
    json: bool = False,
) -> None:
    """Measure top-1, top-5 and loss of a network on a split of the data it was trained on.

    Args:
        checkpoint_path: A best_model.pth, .safetensors or .onnx file; by default your own
            checkpoints/best_model.pth, else the weights that come with the repository.
        split: test, or the val or train images of that run.
        data_dir: Folder that holds cifar-100-python; by default the one that the run used.
        device: auto, cpu, cuda, mps. An .onnx file runs on the CPU.
        tta: Answer with the mean over each image and its mirror (test-time augmentation). It takes
            twice the time, and no figure of this project is made with it.
        json: Print one line of JSON instead of a table; all else goes to stderr.
    """
    from resnet_cifar100.bundle import load_bundle
    from resnet_cifar100.engine.evaluate import evaluate as measure
    from resnet_cifar100.engine.evaluate import load_split, with_mirror
    from resnet_cifar100.runtime import choose_device, keep_freed_memory

    if json:
        speak_aside()
    keep_freed_memory()
    path = checkpoint_path or default_checkpoint()
    target = choose_device("cpu" if path.suffix == ".onnx" else device)
    if path.suffix == ".onnx":
        predict, provenance = _onnx_predict(path)
    else:
        bundle = load_bundle(path).to(target)
        predict, provenance = bundle.logits, bundle.provenance
    dataset, chosen = load_split(provenance, split, data_dir)
    metrics = measure(with_mirror(predict) if tta else predict, chosen.to(target))
    say(f"{path} on {dataset.title} {split} ({len(chosen.labels):,} images)")
    if tta:
        say("With test-time augmentation: not to be compared with figures without it.")
    if path.suffix == ".onnx":
        say("An .onnx file gives calibrated probabilities: the loss is theirs.")
    if json:
        facts = {"weights": str(path), "dataset": dataset.title, "split": split, "tta": tta}
        write_json({**facts, "images": len(chosen.labels), **dataclasses.asdict(metrics)})
        return
    table = Table()
    for name in ("top-1", "top-5", "loss"):
        table.add_column(name, justify="right")
    table.add_row(f"{metrics.top1:.2%}", f"{metrics.top5:.2%}", f"{metrics.loss:.4f}")
    console.print(table)


def predict(
    images: tyro.conf.Positional[tuple[Path, ...]],
    checkpoint_path: Path | None = None,
    top_k: int = 5,
    json: bool = False,
) -> None:
    """Name what is in pictures: the most probable classes of each, with their probabilities.

    Args:
        images: One or more picture files (PNG, JPEG, WebP, BMP, GIF, TIFF) of at most 5 MB and 25
            megapixels.
        checkpoint_path: A best_model.pth, .safetensors or .onnx file; by default your own
            checkpoints/best_model.pth, else the weights that come with the repository.
        top_k: How many classes to show for each picture.
        json: Print one line of JSON a picture, with the keys of docs/web.md, or file and error; all
            else goes to stderr.
    """
    from resnet_cifar100.serve.networks import open_network
    from resnet_cifar100.serve.predictor import Predictor

    if not images:
        raise ConfigError("predict needs at least one picture: predict IMAGE...")
    if json:
        speak_aside()
    predictor = Predictor(open_network(checkpoint_path or default_checkpoint()))
    description = predictor.network.description
    if not 1 <= top_k <= len(description["fine_names"]):
        raise ConfigError(f"--top-k must be in 1 to {len(description['fine_names'])}, got {top_k}")
    if description["provenance"]["dataset"] == SYNTHETIC:
        say("This model knows SYNTHETIC drawn shapes only, not CIFAR-100.", style="bold yellow")
    show = _write_answer if json else _show_answer
    refused = [path for path in images if not _predict_one(predictor, path, top_k, show)]
    if refused:
        raise ImageError(f"{len(refused)} of {len(images)} pictures refused")


def calibrate(
    held_out: Path, checkpoint_path: Path | None = None, data_dir: Path | None = None
) -> None:
    """Fit probabilities and the limit for strange pictures on held-out images, into a checkpoint.

    Args:
        held_out: The best_model.pth of a run with --val-size; its network is measured on the images
            that it never saw.
        checkpoint_path: File to write the calibration into, by default --held-out itself. Another
            one should come from the same recipe.
        data_dir: Folder that holds cifar-100-python; by default the one that the run used.
    """
    from resnet_cifar100.analysis.calibration import fit_calibration, fit_class_means
    from resnet_cifar100.bundle import dtype_of, load_bundle, save_bundle, save_safetensors
    from resnet_cifar100.data.cifar100 import training_splits
    from resnet_cifar100.engine.evaluate import load_split
    from resnet_cifar100.runtime import keep_freed_memory

    path = checkpoint_path or held_out
    bundle, target = load_bundle(held_out), load_bundle(path)
    if bundle.model_config != target.model_config:
        raise ConfigError("--checkpoint-path must be of the same network as --held-out")
    if bundle.provenance["dataset"] != target.provenance["dataset"]:
        raise ConfigError("--checkpoint-path must be of the same data set as --held-out")
    config, target_config = bundle.config, target.config
    if not config.val_size:
        raise ConfigError("--held-out needs a run that held images out (--val-size 5000)")
    keep_freed_memory()
    dataset, val_split = load_split(bundle.provenance, "val", data_dir)
    train_split, _ = training_splits(dataset, config)
    source = f"fitted on {len(val_split.labels):,} training images held out from "
    source += f"recipe {config.recipe}, seed {config.seed}"
    calibration = fit_calibration(bundle, train_split, val_split, source)
    if path != held_out:  # the same limits, but the directions are those of the network itself
        own_train, _ = training_splits(dataset, target_config)
        means = fit_class_means(target, own_train)
        calibration = dataclasses.replace(calibration, class_means=means)
    target = dataclasses.replace(target, calibration=calibration)
    if path.suffix == ".safetensors":
        save_safetensors(target, path, dtype_of(path))
    else:
        save_bundle(target, path)
    limits = f"temperature {calibration.temperature:.3f}"
    limits += f", strangeness up to {calibration.most_strangeness:.3f}"
    say(f"{path}: {limits}, {source}")


def default_checkpoint() -> Path:
    """Return the user's own best model, else the weights that come with the repository; say so."""
    if BEST_MODEL.exists():
        say(f"Using {BEST_MODEL}, which was trained here last, not {SHIPPED_MODEL}.")
        return BEST_MODEL
    if not SHIPPED_MODEL.exists():
        return BEST_MODEL
    say(f"{BEST_MODEL} does not exist, so this uses {SHIPPED_MODEL}.")
    return SHIPPED_MODEL


def _onnx_predict(path: Path) -> tuple["Callable[[Tensor], Tensor]", "Mapping[str, Any]"]:
    """Return an .onnx file as a function from images to logits, and its provenance."""
    import torch

    from resnet_cifar100.serve.networks import OnnxNetwork

    network = OnnxNetwork(path)
    return (
        lambda images: torch.from_numpy(network.score(images.numpy()).probs).log(),
        network.description["provenance"],
    )


def _predict_one(
    predictor: "Predictor", path: Path, top_k: int, show: "Callable[[Path, Answer, float], None]"
) -> bool:
    """Show the answer about one picture, or why it is refused; return whether it was not."""
    started = time.perf_counter()
    try:
        if str(path).startswith(("http:/", "https:/")):
            raise ImageError(f"{path} is an address: save the picture, and name the file")
        answer = predictor.classify(path, top_k)
    except ImageError as error:
        show_fault(str(error))
        if show is _write_answer:
            write_json({"file": str(path), "error": str(error)})
        return False
    show(path, answer, 1000 * (time.perf_counter() - started))
    return True


def _write_answer(path: Path, answer: "Answer", milliseconds: float) -> None:
    from resnet_cifar100.serve.render import answer_json

    write_json({"file": str(path), **answer_json(answer, milliseconds)})


def _show_answer(path: Path, answer: "Answer", _milliseconds: float) -> None:
    table = Table(title=Text(str(path)), title_justify="left", show_header=False)
    for one in answer.classes:
        bar = Text("#" * round(20 * one.prob), style="cyan")
        table.add_row(Text(one.name), f"{one.prob:6.1%}", bar, Text(one.superclass))
    console.print(table)
    if answer.doubt:
        say(f"Not sure: {answer.doubt}")
