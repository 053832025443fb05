import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F

from resnet_cifar100.analysis.calibration import (
    calibration_error,
    fit_calibration,
    fit_class_means,
    fit_temperature,
)
from resnet_cifar100.data.loader import Split
from resnet_cifar100.judge import Judge, strangeness


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
            if max(math.ceil(float(row.max()) * 15) - 1, 0) == bin_index
        ]
        total += abs(sum(confidence - right for confidence, right in inside))
    error, calibrated = (
        calibration_error(one.amax(dim=1), one.argmax(dim=1) == labels)
        for one in (probs, logits.softmax(dim=1))
    )
    assert error == pytest.approx(total / 1000, abs=1e-6)
    assert calibrated < error


def test_strangeness_is_the_distance_to_the_nearest_class():
    means = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    features = torch.tensor([[5.0, 0.0], [3.0, 4.0], [-1.0, -1.0]])
    expected = [0.0, 1 - 4 / 5, 1 + math.sqrt(0.5)]
    assert strangeness(features, means).tolist() == pytest.approx(expected, abs=1e-6)


def noise(count: int, seed: int) -> Split:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator)
    return Split(images, torch.arange(count) % 100)


def test_the_class_means_are_those_of_a_slow_loop(shipped):
    split = noise(150, 0)
    means = fit_class_means(shipped, split)
    for label in (0, 49, 50, 99):
        with torch.no_grad():
            chosen = shipped.preprocess(split.images[split.labels == label])
            mean = shipped.model.forward_features(chosen).mean(dim=0)
        assert torch.allclose(means[label], mean / mean.norm(), atol=1e-5)


def test_the_limit_lets_the_stated_share_of_held_out_images_pass(shipped):
    train, held_out = noise(100, 1), noise(60, 2)
    calibration = fit_calibration(shipped, train, held_out, "a test")
    judge = Judge(dataclasses.replace(shipped, calibration=calibration)).eval()
    with torch.no_grad():
        probs, distances = judge(held_out.images)
    passed = distances <= calibration.most_strangeness
    assert float(passed.float().mean()) == pytest.approx(0.95, abs=0.02)
    expected = (shipped.logits(held_out.images) / calibration.temperature).softmax(dim=1)
    assert torch.allclose(probs, expected, atol=1e-5)
    assert calibration.source == "a test"


def test_the_shipped_weights_know_their_data_and_noise_apart(shipped, real_dataset):
    assert shipped.calibration.most_strangeness is not None
    judge = Judge(shipped).eval()
    pictures = real_dataset.test.images[:500]
    with torch.no_grad():
        shares = [
            float((judge(images)[1] <= shipped.calibration.most_strangeness).float().mean())
            for images in (pictures, noise(200, 3).images)
        ]
    assert shares[0] > 0.9
    assert shares[1] < 0.01
