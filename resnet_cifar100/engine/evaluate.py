"""Run a network over a split and measure."""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from resnet_cifar100.data.loader import Split
from resnet_cifar100.engine.metrics import Metrics, MetricSums

EVAL_BATCH_SIZE = 500


def eval_batches(split: Split) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the whole split in order: images (N,3,32,32) uint8, labels (N,)."""
    yield from zip(
        split.images.split(EVAL_BATCH_SIZE), split.labels.split(EVAL_BATCH_SIZE), strict=True
    )


@torch.inference_mode()
def evaluate(predict: Callable[[Tensor], Tensor], split: Split) -> Metrics:
    """Measure `predict`, uint8 images (N,3,32,32) -> logits (N,K), over a split."""
    sums = MetricSums(split.labels.device)
    for images, labels in eval_batches(split):
        logits = predict(images).float()
        sums.update(F.cross_entropy(logits, labels, reduction="none"), logits, labels)
    return sums.compute()
