import dataclasses
from pathlib import Path

from resnet_cifar100.bundle import Calibration, describe
from resnet_cifar100.serve.texts import about
from tests.conftest import REPOSITORY

WEIGHTS = REPOSITORY / "weights" / "fast.safetensors"


def test_the_card_says_how_good_the_network_is_and_what_it_calls_strange(shipped):
    card = about(describe(shipped), WEIGHTS)
    assert "| Test top-1 | 75.91% |" in card
    assert "The probability is calibrated" in card
    assert "mends both" not in card


def test_an_uncalibrated_network_is_said_to_call_nothing_strange(shipped):
    card = about(describe(dataclasses.replace(shipped, calibration=Calibration())), WEIGHTS)
    assert "The probability is not calibrated" in card
    assert "95 of 100" not in card


def test_figures_of_an_epoch_are_no_result(shipped):
    metrics = {"epoch": 3, "test/top1": 0.5}
    provenance = {**shipped.provenance, "metrics": metrics}
    card = about(describe(dataclasses.replace(shipped, provenance=provenance)), Path(WEIGHTS))
    assert "| Test top-1 | not measured |" in card
    assert "an unfinished run" in card


def test_a_network_of_drawings_is_not_said_to_know_photographs(shipped):
    provenance = {**shipped.provenance, "dataset": "SYNTHETIC"}
    card = about(describe(dataclasses.replace(shipped, provenance=provenance)), WEIGHTS)
    assert "SYNTHETIC drawn shapes only" in card
    assert "drawn shapes and nothing else" in card
    assert "people, animals" not in card


def test_weights_of_an_unknown_commit_say_so(shipped):
    environment = {**shipped.provenance["environment"], "commit": ""}
    provenance = {**shipped.provenance, "environment": environment}
    card = about(describe(dataclasses.replace(shipped, provenance=provenance)), WEIGHTS)
    assert "| Commit | `?` |" in card
