"""All that a network says of a split, evaluated once and kept."""

import io
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from resnet_cifar100.bundle import Bundle
from resnet_cifar100.data.loader import Split
from resnet_cifar100.engine.evaluate import eval_batches
from resnet_cifar100.storage import replace_file


@dataclass(frozen=True)
class Predictions:
    """Logits (N,K) float32 and labels (N,) int64 of a split, and the temperature to read them at.

    Everything else follows from these.
    """

    logits: Tensor
    labels: Tensor
    temperature: float = 1.0

    @property
    def is_calibrated(self) -> bool:
        """Whether a temperature was fitted."""
        return self.temperature != 1

    @cached_property
    def probs(self) -> Tensor:
        """Calibrated probabilities (N,K)."""
        return (self.logits / self.temperature).softmax(dim=1)

    @cached_property
    def predicted(self) -> Tensor:
        """Most probable class (N,)."""
        return self.logits.topk(1).indices[:, 0]  # as top_k ranks

    @cached_property
    def confidence(self) -> Tensor:
        """Probability of the most probable class (N,)."""
        return self.probs.amax(dim=1)

    @cached_property
    def raw_confidence(self) -> Tensor:
        """The same as trained, without temperature (N,)."""
        return self.logits.softmax(dim=1).amax(dim=1)

    @cached_property
    def hits(self) -> Tensor:
        """Whether the most probable class is the label (N,)."""
        return self.predicted == self.labels

    @cached_property
    def losses(self) -> Tensor:
        """Cross-entropy of each image, without temperature (N,)."""
        return F.cross_entropy(self.logits, self.labels, reduction="none")

    def top_k(self, k: int) -> float:
        """Return the share of images whose label is among the k most probable classes."""
        ranked = self.logits.topk(min(k, self.logits.shape[1])).indices
        return float((ranked == self.labels[:, None]).any(dim=1).double().mean())

    def save(self, path: Path, dataset: str) -> None:
        """Write dataset, logits, labels, predicted, confidence and temperature as .npz."""
        arrays = {
            "dataset": np.array(dataset),
            "logits": self.logits.numpy(),
            "labels": self.labels.numpy(),
            "predicted": self.predicted.numpy(),
            "confidence": self.confidence.numpy(),
            "temperature": np.array(self.temperature),
        }
        content = io.BytesIO()
        np.savez_compressed(content, **arrays)  # type: ignore[arg-type]
        replace_file(path, content.getvalue())


def predict_split(bundle: Bundle, split: Split) -> Predictions:
    """Run the network over `split`; the temperature is that of its calibration."""
    batches = eval_batches(split.to(bundle.preprocess.mean.device))
    logits = torch.cat([bundle.logits(images).float().cpu() for images, _ in batches])
    return Predictions(logits, split.labels.cpu(), bundle.calibration.temperature)
