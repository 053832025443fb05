"""The forms of a network side by side: what each answers, weighs and costs, in one run."""

import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime  # type: ignore[import-untyped]
import torch
from torch import Tensor

from resnet_cifar100.bundle import Bundle
from resnet_cifar100.judge import Judge

Predict = Callable[[np.ndarray], np.ndarray]
BATCH_SIZE = 500
ROUNDS = 5
CALLS = 40  # with one image, in a round


class Form(NamedTuple):
    """What was measured of one form: top-1 in 0..1, and speeds over all rounds."""

    top1: float
    same_top1: int  # images with the same most probable class as the first form's
    largest_difference: float  # of a probability, from the first form's
    images_per_s: float  # in batches, median over rounds
    p50_ms: float  # of one image
    p99_ms: float


def eager(bundle: Bundle) -> Predict:
    """Return the network in PyTorch: uint8 images (N,3,32,32) -> probs (N,K)."""
    return _predict_with(Judge(bundle).eval())


def compiled(bundle: Bundle) -> Predict:
    """Return the same compiled by torch, one program for each size of a batch."""
    return _predict_with(torch.compile(Judge(bundle).eval(), dynamic=False))


def run_onnx(path: Path) -> Predict:
    """Return an ONNX file of this project in ONNX Runtime, on the CPU."""
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    return lambda images: session.run(["probs"], {"images": images})[0]


def predict_all(predict: Predict, images: np.ndarray) -> np.ndarray:
    """Return probs (N,K) of uint8 images (N,3,32,32), batch by batch."""
    starts = range(0, len(images), BATCH_SIZE)
    return np.concatenate([predict(images[i : i + BATCH_SIZE]) for i in starts])


class Comparison(NamedTuple):
    """What was measured of several forms in one run; the first is what others are compared with."""

    forms: Mapping[str, Form]
    sizes: Mapping[str, int]  # in bytes, of those that are files

    @property
    def reference(self) -> Form:
        """The form that the others are compared with."""
        return next(iter(self.forms.values()))

    images: int


def compare_forms(
    forms: Mapping[str, Predict], images: np.ndarray, labels: np.ndarray
) -> dict[str, Form]:
    """Measure each form on uint8 images (N,3,32,32); speeds take turns, so that ratios hold."""
    probs = {name: predict_all(predict, images) for name, predict in forms.items()}
    first = next(iter(probs.values()))
    batches: dict[str, list[float]] = {name: [] for name in forms}
    calls: dict[str, list[float]] = {name: [] for name in forms}
    for _ in range(ROUNDS):
        for name, predict in forms.items():
            batches[name].append(_seconds(predict, images[:BATCH_SIZE]))
            calls[name] += [_seconds(predict, images[:1]) for _ in range(CALLS)]
    return {
        name: Form(
            top1=float((own.argmax(1) == labels).mean()),
            same_top1=int((own.argmax(1) == first.argmax(1)).sum()),
            largest_difference=float(np.abs(own - first).max()),
            images_per_s=len(images[:BATCH_SIZE]) / statistics.median(batches[name]),
            p50_ms=1000 * float(np.percentile(calls[name], 50)),
            p99_ms=1000 * float(np.percentile(calls[name], 99)),
        )
        for name, own in probs.items()
    }


def _predict_with(judge: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Predict:
    def predict(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            probs: np.ndarray = judge(torch.from_numpy(images))[0].numpy()
        return probs

    return predict


def _seconds(predict: Predict, images: np.ndarray) -> float:
    started = time.perf_counter()
    predict(images)
    return time.perf_counter() - started
