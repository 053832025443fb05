"""Run a network over a split and measure."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from resnet_cifar100.config import Config
from resnet_cifar100.data.cifar100 import Dataset, load_dataset, training_splits
from resnet_cifar100.data.loader import Split
from resnet_cifar100.engine.metrics import Metrics, MetricSums
from resnet_cifar100.errors import ConfigError, DataError

EVAL_BATCH_SIZE = 500
SplitName = Literal["test", "val", "train"]
Batch = tuple[Tensor, Tensor]


def load_split(
    provenance: Mapping[str, Any], name: SplitName, data_dir: Path | None
) -> tuple[Dataset, Split]:
    """Return the data set that a network was trained on, and the split of this name of its run.

    `provenance` is that of its bundle.

    Raises:
        ConfigError: for val, where that run held nothing out.
        DataError: where that data set cannot be had.
    """
    title, config = provenance["dataset"], Config.from_json(provenance["config"])
    config = dataclasses.replace(config, data_dir=data_dir or config.data_dir)
    dataset = load_dataset(config)
    if dataset.title != title:
        raise DataError(
            f"the weights were trained on {title}, and only {dataset.title} can be had: "
            "--data-dir names another folder"
        )
    train, val = training_splits(dataset, config)
    split = {"test": dataset.test, "val": val, "train": train}[name]
    if split is None:
        raise ConfigError(
            "--split val needs a run that held images out (train with --val-size 5000)"
        )
    return dataset, split


def eval_batches(split: Split) -> Iterator[Batch]:
    """Yield the whole split in order: images (N,3,32,32) uint8, labels (N,)."""
    yield from zip(
        split.images.split(EVAL_BATCH_SIZE), split.labels.split(EVAL_BATCH_SIZE), strict=True
    )


def with_mirror(predict: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Return `predict` with test-time augmentation: the mean of an image and of its mirror."""
    return lambda images: (predict(images).float() + predict(images.flip(3)).float()) / 2


@torch.inference_mode()
def evaluate(
    predict: Callable[[Tensor], Tensor],
    split: Split,
    between: Callable[[Iterator[Batch]], Iterator[Batch]] = iter,
) -> Metrics:
    """Measure `predict`, uint8 images (N,3,32,32) -> logits (N,K), over a split.

    `between` passes the batches on, and may do something between them.
    """
    sums = MetricSums(split.labels.device)
    for images, labels in between(eval_batches(split)):
        logits = predict(images).float()
        sums.update(F.cross_entropy(logits, labels, reduction="none"), logits, labels)
    return sums.compute()
