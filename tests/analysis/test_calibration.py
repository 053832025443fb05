import math

import pytest
import torch
import torch.nn.functional as F

from resnet_cifar100.analysis.calibration import (
    KNOWN_SHARE,
    calibration_error,
    fit_calibration,
    fit_temperature,
    predict_logits,
    strangeness,
)
from resnet_cifar100.bundle import load_bundle
from resnet_cifar100.config import SHIPPED_MODEL
from resnet_cifar100.data.loader import Split
from tests.conftest import REPOSITORY


def drawn(count: int = 20_000) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits, and labels drawn with exactly the probabilities that the logits say."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(count, 10, generator=generator)
    labels = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    return logits, labels


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_the_temperature_undoes_a_scale(temperature):
    logits, labels = drawn()
    assert fit_temperature(logits * temperature, labels) == pytest.approx(temperature, rel=0.03)


def test_no_other_temperature_has_a_lower_loss():
    logits, labels = drawn(500)
    best = fit_temperature(logits, labels)
    loss = F.cross_entropy(logits / best, labels)
    for other in (0.8 * best, 0.99 * best, 1.01 * best, 1.3 * best):
        assert F.cross_entropy(logits / other, labels) > loss


def test_the_calibration_error_is_that_of_a_slow_sum():
    logits, labels = drawn(1000)
    probs = (3 * logits).softmax(dim=1)
    total = 0.0
    for bin_index in range(15):
        inside = [
            (float(row.max()), int(row.argmax()) == int(label))
            for row, label in zip(probs, labels, strict=True)
            if min(int(row.max() * 15), 14) == bin_index
        ]
        total += abs(sum(confidence - right for confidence, right in inside))
    assert calibration_error(probs, labels) == pytest.approx(total / 1000, abs=1e-6)
    assert calibration_error(logits.softmax(dim=1), labels) < calibration_error(probs, labels)


def test_strangeness_is_the_free_energy():
    logits = torch.tensor([[1.0, 2.0], [-5.0, -5.0]])
    expected = [-math.log(math.e + math.e**2), 5 - math.log(2)]
    assert strangeness(logits).tolist() == pytest.approx(expected)


def test_the_limit_lets_the_stated_share_of_held_out_images_pass():
    bundle = load_bundle(REPOSITORY / SHIPPED_MODEL)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (60, 3, 32, 32), dtype=torch.uint8, generator=generator)
    split = Split(images, torch.arange(60))
    calibration = fit_calibration(bundle, split, "a test")
    passed = strangeness(predict_logits(bundle, split)) <= calibration.most_strangeness
    assert float(passed.float().mean()) == pytest.approx(KNOWN_SHARE, abs=0.02)
    assert calibration.source == "a test"
