"""Recipes as commands, and shorter than they are."""

import dataclasses
import re
import shlex
from pathlib import Path

import pytest
import torch

from resnet_cifar100.cli.train import training_settings
from resnet_cifar100.recipes import RECIPES, create_recipe, shortened, training_command


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"epochs": 4, "warmup_epochs": 3.0},
        {"epochs": 200, "seed": 3, "flip": False, "compile": True, "decay_norms": True},
        {"augment": ("cutout:16", "mixup"), "early_sizes": (), "early_shares": ()},
        {"augment": (), "log_file": Path("a b/c'd.md"), "teacher": Path("t.pth")},
    ],
    ids=["itself", "fewer epochs", "numbers", "lists", "paths"],
)
def test_the_command_of_a_run_asks_for_its_settings(recipe, changes):
    config = dataclasses.replace(create_recipe(recipe), **changes)
    words = shlex.split(training_command(config))
    assert words[:2] == ["python", "train.py"]
    assert training_settings(words[2:]) == (config, None)


def test_the_command_of_a_recipe_that_is_no_more_is_one_of_the_reference():
    config = dataclasses.replace(create_recipe("fast"), recipe="gone")
    words = shlex.split(training_command(config))
    asked, _ = training_settings(words[2:])
    assert asked == dataclasses.replace(config, recipe="reference")


@pytest.mark.parametrize(("has_gpu", "recipe"), [(False, "quick"), (True, "reference")])
def test_training_alone_says_what_it_picked_and_why(has_gpu, recipe, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    config, _ = training_settings([])
    assert config == create_recipe(recipe)
    assert re.match(rf"Recipe {recipe}, because this machine has .*GPU", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("recipe", "epochs", "warmup"),
    [("fast", 12, 3), ("fast", 8, 3), ("fast", 2, 1), ("strong", 1, 0.5)],
)
def test_a_short_run_warms_up_for_half_of_it_at_most(recipe, epochs, warmup):
    config, _ = training_settings(["--recipe", recipe, "--epochs", str(epochs)])
    assert (config.epochs, config.warmup_epochs) == (epochs, warmup)
    assert config == shortened(create_recipe(recipe), epochs)


def test_a_short_run_has_plain_epochs_for_half_of_it_at_most():
    strong = dataclasses.replace(create_recipe("strong"), plain_epochs=15)
    assert [shortened(strong, epochs).plain_epochs for epochs in (10, 11, 40)] == [5, 5, 15]


def test_a_warm_up_that_is_asked_for_stays():
    config, _ = training_settings(["--recipe", "fast", "--epochs", "2", "--warmup-epochs", "2"])
    assert config.warmup_epochs == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--recipe reference --muon-lr 0.1", ["--muon-lr has no effect", "--optimizer muon"]),
        ("--recipe fast --temperature 2", ["--temperature has no effect", "--teacher"]),
        ("--recipe reference --plain-epochs 3", ["--plain-epochs has no effect", "--augment"]),
        ("--recipe fast --no-flip --no-alternating-flip", []),
        ("--recipe fast --optimizer sgd --lr 0.4", []),
        ("--recipe fast --muon-lr 0.1", []),
    ],
)
def test_a_setting_that_does_nothing_is_named_with_what_it_needs(words, said, capsys):
    training_settings(words.split())
    printed = " ".join(capsys.readouterr().out.split())
    assert all(part in printed for part in said)
    assert bool(printed) == bool(said)
