"""What the app calls "not sure": how well probabilities fit, and which strange pictures it notices.

    python -m benchmarks.strangeness [--checkpoint-path FILE] [--out FOLDER]

All strange pictures are made here by code, but for the digits and the two photographs that
scikit-learn carries. Nothing is fitted: the limits are those inside the checkpoint.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from sklearn.datasets import load_digits, load_sample_images
from sklearn.metrics import roc_auc_score
from torch import Tensor

from benchmarks.page import Table, keep
from resnet_cifar100.analysis.calibration import calibration_error
from resnet_cifar100.bundle import load_bundle
from resnet_cifar100.config import SHIPPED_MODEL, Config
from resnet_cifar100.data.cifar100 import load_dataset
from resnet_cifar100.judge import Judge
from resnet_cifar100.serve.predictor import LEAST_PROB

COUNT = 1000


def judged(judge: Judge, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return probs (N,K) and strangeness (N,)."""
    with torch.inference_mode():
        parts = [judge(batch) for batch in images.split(500)]
    probs, strangeness = zip(*parts, strict=True)
    return torch.cat(probs), torch.cat(strangeness)


def strange_sets(images: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Yield names and uint8 pictures (N,3,32,32); some are made from test images (M,3,32,32)."""
    generator, rng = torch.Generator().manual_seed(0), np.random.default_rng(0)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator)

    def as_bytes(values: Tensor) -> Tensor:
        return (values.clamp(0, 1) * 255).byte()

    yield "noise, pixel by pixel", as_bytes(uniform(COUNT, 3, 32, 32))
    yield "one colour", as_bytes(uniform(COUNT, 3, 1, 1).expand(-1, -1, 32, 32))
    smooth = F.interpolate(uniform(COUNT, 3, 4, 4), size=32, mode="bicubic")
    yield "smooth noise", as_bytes(smooth)
    digits = torch.from_numpy(load_digits().images[:COUNT]).float()[:, None] / 16  # (N,1,8,8)
    digits = as_bytes(F.interpolate(digits, size=32, mode="bicubic")).expand(-1, 3, -1, -1)
    yield "written digits, white on black", digits
    yield "written digits, black on white", 255 - digits
    yield "a page of text", torch.stack([text_page(rng) for _ in range(COUNT)])
    photographs = [torch.tensor(image) for image in load_sample_images().images]  # (H,W,3)
    yield (
        "details of two photographs",
        torch.stack([detail(photographs, rng) for _ in range(COUNT)]),
    )
    drawn = load_dataset(Config(dataset="synthetic")).test.images[:COUNT]
    yield "this project's SYNTHETIC shapes", drawn
    pieces = images[:COUNT].unfold(2, 8, 8).unfold(3, 8, 8).reshape(-1, 3, 16, 8, 8)
    pieces = pieces[:, :, torch.randperm(16, generator=generator)].reshape(-1, 3, 4, 4, 8, 8)
    yield "test images, 16 pieces shuffled", pieces.transpose(3, 4).reshape(-1, 3, 32, 32)
    yield "test images, colours inverted", 255 - images[:COUNT]
    yield "test images, upside down", images[:COUNT].flip(2)


def text_page(rng: np.random.Generator) -> Tensor:
    """Return a page of random words, (3,32,32)."""
    page = Image.new("RGB", (128, 128), tuple(int(level) for level in rng.integers(200, 256, 3)))
    ink = tuple(int(level) for level in rng.integers(0, 80, 3))
    for line in range(8):
        words = "".join(rng.choice(list("abcdefghij klmnop qrstuvwxyz"), 20))
        ImageDraw.Draw(page).text((4, 4 + 15 * line), words, fill=ink)
    small = np.asarray(page.resize((32, 32), Image.Resampling.BICUBIC))
    return torch.from_numpy(small.copy()).permute(2, 0, 1)


def detail(photographs: list[Tensor], rng: np.random.Generator) -> Tensor:
    """Return 32 x 32 pixels of one of the photographs, (3,32,32)."""
    photograph = photographs[rng.integers(len(photographs))]
    top, left = (int(rng.integers(side - 32)) for side in photograph.shape[:2])
    return photograph[top : top + 32, left : left + 32].permute(2, 0, 1)


def calibration_table(probs: Tensor, raw: Tensor, known: Tensor, labels: Tensor) -> Table:
    """Return how well the probabilities of the test images fit; `known` marks the not strange."""
    confidence, predicted = probs.max(dim=1)
    right, is_sure = predicted == labels, (confidence >= LEAST_PROB) & known
    rows = [
        [
            "expected calibration error, as trained",
            f"{calibration_error(raw.amax(dim=1), right):.1%}",
        ],
        ["expected calibration error, calibrated", f"{calibration_error(confidence, right):.1%}"],
        ["top-1", f"{right.float().mean():.2%}"],
        ["called unlike the data", f"{1 - known.float().mean():.1%}"],
        ["sure (named)", f"{is_sure.float().mean():.1%}"],
        ["right, of those", f"{right[is_sure].float().mean():.1%}"],
        ["right, of the others", f"{right[~is_sure].float().mean():.1%}"],
    ]
    how = f"{len(labels):,} test images; no limit was chosen on them."
    return Table("calibration", "On the test set", how, ["What", "Figure"], rows, {})


def main() -> None:
    """Print both tables, and write them to --out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint-path", type=Path, default=SHIPPED_MODEL)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    bundle = load_bundle(asked.checkpoint_path)
    judge, limit = Judge(bundle).eval(), bundle.calibration.most_strangeness
    if limit is None:
        raise SystemExit(f"{asked.checkpoint_path} is not calibrated: see the command calibrate")
    test = load_dataset(Config()).test
    probs, usual = judged(judge, test.images)
    logits = torch.cat([bundle.logits(batch) for batch in test.images.split(500)])
    tables = [calibration_table(probs, logits.softmax(1), usual <= limit, test.labels)]
    rows = []
    for name, images in strange_sets(test.images):
        set_probs, strange = judged(judge, images.contiguous())
        scores = torch.cat([usual, strange]).numpy()
        area = roc_auc_score(np.r_[np.zeros(len(usual)), np.ones(len(strange))], scores)
        unsure = (strange > limit) | (set_probs.amax(dim=1) < LEAST_PROB)
        shares = [f"{flag.float().mean():.1%}" for flag in (strange > limit, unsure)]
        rows.append([name, f"{len(images):,}", *shares, f"{area:.3f}"])
    how = "Pictures unlike CIFAR-100. The area under the ROC curve is that of strangeness alone, "
    how += "against the test images: 0.5 is chance, 1 tells all apart."
    head = ["Pictures", "Number", "Called unlike the data", "Not sure in all", "Area under ROC"]
    tables.append(Table("strange", "Strange pictures", how, head, rows, {"limit": limit}))
    for table in tables:
        keep(table, asked.out)


if __name__ == "__main__":
    main()
