"""What predictions give reason to try."""

import pytest
import torch

from resnet_cifar100.analysis.findings import Names, advise_on_predictions
from resnet_cifar100.analysis.predictions import Predictions
from resnet_cifar100.analysis.scores import confusion_matrix

NAMES = Names(["cat", "dog"], ["pets"], [0, 0])


def advised(predictions: Predictions, *, has_held_out: bool) -> dict[str, str]:
    """Return the flags or the command of each advice by its title."""
    confusion = confusion_matrix(predictions.predicted, predictions.labels, 2)
    advice = advise_on_predictions(
        predictions, confusion, NAMES, "CIFAR-100", has_held_out=has_held_out
    )
    return {one.title: one.flags for one in advice}


def overconfident(temperature: float = 1.0) -> Predictions:
    """Two thirds of 3,000 answers are right; the network is sure of all."""
    labels = torch.tensor([0, 1, 0, 1, 0, 1]).repeat(500)
    answers = torch.tensor([0, 1, 0, 1, 1, 0]).repeat(500)
    return Predictions(10 * torch.eye(2)[answers], labels, temperature)


@pytest.mark.parametrize(
    ("has_held_out", "what"), [(False, "--val-size 5000"), (True, "calibrate --held-out")]
)
def test_what_calibrates_depends_on_whether_images_were_held_out(has_held_out, what):
    assert what in advised(overconfident(), has_held_out=has_held_out)["Calibration"]


def test_a_calibrated_network_is_not_to_be_calibrated():
    assert "Calibration" not in advised(overconfident(temperature=2.0), has_held_out=True)


def test_a_class_that_is_found_as_often_as_others_is_not_weak():
    assert "Weak classes" not in advised(overconfident(), has_held_out=False)


def test_a_class_far_below_the_mean_is_named():
    labels = torch.tensor([0, 1]).repeat(500)
    predictions = Predictions(10 * torch.eye(2)[torch.zeros(1000, dtype=torch.long)], labels)
    assert "samples" in advised(predictions, has_held_out=False)["Weak classes"]
