"""What a teacher adds to the loss, against loops over plain numbers."""

import math

import pytest
import torch

from resnet_cifar100.engine import distill
from resnet_cifar100.engine.distill import dkd_loss, kd_loss

TEMPERATURES = [0.5, 1.0, 4.0]


def log_sum(numbers):
    most = max(numbers)
    return most + math.log(sum(math.exp(number - most) for number in numbers))


def log_shares(numbers):
    return [number - log_sum(numbers) for number in numbers]


def divergence(theirs, ours):
    """KL(theirs || ours) of two lists of log-probabilities."""
    return sum(math.exp(a) * (a - b) for a, b in zip(theirs, ours, strict=True))


def kd_by_hand(logits, taught, temperature):
    parts = [
        divergence(*(log_shares([score / temperature for score in row]) for row in (there, here)))
        for here, there in zip(logits.tolist(), taught.tolist(), strict=True)
    ]
    return temperature**2 * sum(parts) / len(parts)


def decoupled(row, taught, label, temperature):
    """Return TCKD, NCKD and the teacher's probability of the label: equations 1 to 6 of DKD."""
    pairs, others = [], []
    for scores in (taught, row):
        scaled = [score / temperature for score in scores]
        besides = [score for index, score in enumerate(scaled) if index != label]
        everything = log_sum(scaled)
        pairs.append([scaled[label] - everything, log_sum(besides) - everything])
        others.append(log_shares(besides))
    return divergence(*pairs), divergence(*others), math.exp(pairs[0][0])


def dkd_by_hand(logits, taught, labels, temperature):
    rows = zip(logits.tolist(), taught.tolist(), labels.tolist(), strict=True)
    parts = [decoupled(*row, temperature)[:2] for row in rows]
    return temperature**2 * sum(target + 8 * other for target, other in parts) / len(parts)


def draw(count=4, dtype=torch.float64):
    """Return logits, a teacher's logits and labels; the teacher is sure of some of the labels."""
    generator = torch.Generator().manual_seed(count)
    logits, taught = 3 * torch.randn(2, count, 100, generator=generator, dtype=dtype)
    labels = torch.randint(100, (count,), generator=generator)
    taught[torch.arange(count), labels] += torch.arange(count) * 4
    return logits, taught, labels


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_both_losses_are_those_of_loops_over_numbers(temperature):
    logits, taught, labels = draw()
    kd = kd_by_hand(logits, taught, temperature)
    assert kd_loss(logits, taught, temperature).item() == pytest.approx(kd, rel=1e-9)
    dkd = dkd_by_hand(logits, taught, labels, temperature)
    assert dkd_loss(logits, taught, labels, temperature).item() == pytest.approx(dkd, rel=1e-9)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_the_two_parts_make_up_the_whole_where_the_second_is_weighed_by_doubt(
    temperature, monkeypatch
):
    """KD = TCKD + (1 - p) NCKD, p the teacher's probability of the label: equation 7 of DKD."""
    logits, taught, labels = draw()
    for row, teacher, label in zip(logits, taught, labels, strict=True):
        parts = {}
        for weight in (0.0, 1.0):
            monkeypatch.setattr(distill, "DKD_BETA", weight)
            parts[weight] = dkd_loss(row[None], teacher[None], label[None], temperature).item()
        sure = (teacher / temperature).softmax(0)[label].item()
        whole = parts[0.0] + (1 - sure) * (parts[1.0] - parts[0.0])
        assert whole == pytest.approx(kd_loss(row[None], teacher[None], temperature).item())


@pytest.mark.parametrize("loss", ["kd", "dkd"])
def test_nothing_is_left_to_learn_from_equal_answers_whatever_is_added_to_them(loss):
    _, taught, labels = draw()
    offsets = torch.tensor([0.0, 5.0, -30.0, 7.0], dtype=torch.float64)[:, None]
    for logits in (taught, taught + offsets):
        logits = logits.clone().requires_grad_()
        rest = [labels] if loss == "dkd" else []
        value = getattr(distill, f"{loss}_loss")(logits, taught, *rest, 4.0)
        value.backward()
        assert value.item() == pytest.approx(0, abs=1e-9)
        assert logits.grad.abs().max() < 1e-9


def test_a_number_added_to_all_logits_of_an_image_changes_nothing():
    logits, taught, labels = draw()
    ours = torch.tensor([1.0, -8.0, 20.0, 3.0], dtype=torch.float64)[:, None]
    theirs = ours.flip(0) * 2
    moved = logits + ours, taught + theirs
    assert kd_loss(*moved, 4.0).item() == pytest.approx(kd_loss(logits, taught, 4.0).item())
    dkd = dkd_loss(logits, taught, labels, 4.0).item()
    assert dkd_loss(*moved, labels, 4.0).item() == pytest.approx(dkd)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_extreme_logits_give_finite_losses_and_gradients(temperature):
    generator = torch.Generator().manual_seed(0)
    logits, taught = 100.0 - 200.0 * torch.randint(2, (2, 8, 100), generator=generator)
    labels = torch.arange(8)
    for row in range(4):  # sure of the label or of another class, rightly or not
        logits[row], taught[row] = -100.0, -100.0
        logits[row, row + row % 2], taught[row, row + row // 2] = 100.0, 100.0
    logits.requires_grad_()
    kd, dkd = kd_loss(logits, taught, temperature), dkd_loss(logits, taught, labels, temperature)
    assert kd.item() == pytest.approx(kd_by_hand(logits, taught, temperature), rel=1e-4)
    assert dkd.item() == pytest.approx(dkd_by_hand(logits, taught, labels, temperature), rel=1e-4)
    for loss in (kd, dkd):
        (gradient,) = torch.autograd.grad(loss, logits)
        assert torch.isfinite(gradient).all()
        assert gradient.abs().max() > 0
