"""Metrics as sums on the device; reading them is the only time the host waits."""

from dataclasses import dataclass

import torch
from torch import Tensor

from resnet_cifar100.parallel import mean_over_processes, world_size


@dataclass(frozen=True)
class Metrics:
    """Mean loss, and top-1 and top-5 as fractions in 0..1."""

    loss: float
    top1: float
    top5: float


class MetricSums:
    """Adds up loss and hits over the batches of a split."""

    def __init__(self, device: torch.device) -> None:
        self.sums = torch.zeros(4, device=device)  # loss, top-1 hits, top-5 hits, images

    def update(self, losses: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Add a batch: losses (N,), logits (N,K), labels (N,)."""
        ranked = logits.topk(min(5, logits.shape[1])).indices
        hits = ranked == labels[:, None]  # (N,5)
        parts = [losses.sum(), hits[:, 0].sum(), hits.sum(), losses.new_full((), len(labels))]
        self.sums += torch.stack([part.float() for part in parts])

    def compute(self) -> Metrics:
        """Return the means; waits for the device."""
        loss, top1, top5, images = self.sums.tolist()
        return Metrics(loss / images, top1 / images, top5 / images)


class EpochLosses:
    """The loss of each step of the epoch in progress, and the hits so far, all on the device.

    Each process counts for all: the mean of its numbers over the processes is that of the run.
    """

    def __init__(self, steps_per_epoch: int, device: torch.device) -> None:
        self.losses = torch.zeros(steps_per_epoch, device=device)
        self.hits = torch.zeros((), device=device)

    def reset(self) -> None:
        """Begin an epoch."""
        self.losses.zero_()
        self.hits.zero_()

    def update(self, step: int, loss: Tensor, logits: Tensor, targets: Tensor) -> None:
        """Record the step with this index in its epoch: loss (), logits (N,K), targets."""
        self.losses[step] = loss
        self.hits += world_size() * (logits.argmax(1) == hard_labels(targets)).sum()

    def read(self, first: int, last: int) -> list[float]:
        """Return the losses of the steps first..last-1 of the epoch; waits for the device."""
        losses: list[float] = mean_over_processes(self.losses[first:last]).tolist()
        return losses

    def top1(self, images: int) -> float:
        """Return the share of hits among the `images` of all processes; waits for the device."""
        return mean_over_processes(self.hits).item() / images


def hard_labels(targets: Tensor) -> Tensor:
    """Return labels (N,) as they are; of shares of the classes (N,K) the class with the largest."""
    return targets.argmax(1) if targets.ndim == 2 else targets
