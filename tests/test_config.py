import dataclasses
import json
from pathlib import Path

import pytest

from resnet_cifar100.config import Config
from resnet_cifar100.errors import ConfigError
from resnet_cifar100.models.factory import MODELS
from resnet_cifar100.recipes import RECIPES, create_recipe

INVALID = {
    "dropout": 1.0,
    "image_size": 33,
    "dataset": "mnist",
    "schedule": "cosin",
    "precision": "fp8",
    "val_size": 150,
    "train_size": -100,
    "crop_padding": 17,
    "batch_size": 1,
    "epochs": 0,
    "lr": 0.0,
    "momentum": 1.0,
    "weight_decay": -1e-4,
    "warmup_epochs": 101,
    "label_smoothing": 1.0,
    "grad_clip_norm": -1.0,
    "ema_decay": 1.0,
    "early_stopping_patience": -1,
    "seed": -1,
    "num_threads": -1,
    "checkpoint_minutes": -1.0,
    "keep_checkpoints": 0,
    "log_steps": 0,
    "checkpoint_path": Path("model.pt"),
}


@pytest.mark.parametrize("field", INVALID)
def test_a_wrong_value_is_refused_with_its_flag_and_value(field):
    with pytest.raises(ConfigError) as refused:
        Config(**{field: INVALID[field]})
    assert "--" + field.replace("_", "-") in str(refused.value)
    assert str(INVALID[field]) in str(refused.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
@pytest.mark.parametrize("field", ["lr", "weight_decay", "momentum", "label_smoothing"])
def test_no_setting_may_be_negative_infinite_or_nan(field, value):
    with pytest.raises(ConfigError):
        Config(**{field: value})


def test_early_stopping_needs_images_to_decide_on():
    with pytest.raises(ConfigError, match="--val-size"):
        Config(early_stopping_patience=3)
    Config(early_stopping_patience=3, val_size=5000)


@pytest.mark.parametrize("name", RECIPES)
def test_settings_survive_json(name):
    config = create_recipe(name)
    assert Config.from_json(config.to_json()) == config


def test_unknown_settings_are_refused_by_name():
    values = json.loads(Config().to_json()) | {"learning_rate": 0.1}
    with pytest.raises(ConfigError, match="learning_rate"):
        Config.from_json(json.dumps(values))


@pytest.mark.parametrize("text", ["", "{", "[1]", "3", '{"epochs": "ten"}', '{"log_file": 3}'])
def test_what_is_not_a_json_object_of_settings_is_refused(text):
    with pytest.raises(ConfigError):
        Config.from_json(text)


def test_the_reference_recipe_is_the_users_document():
    config = create_recipe("reference")
    documented = {
        "batch_size": 128,
        "epochs": 100,
        "lr": 0.1,
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "log_file": Path("logs.md"),
        "checkpoint_path": Path("checkpoints/best_model.pth"),
        "model": "resnet44v2",
        "dropout": 0.1,
        "crop_padding": 4,
        "flip": True,
        "schedule": "cosine",
        "nesterov": False,
        "warmup_epochs": 0.0,
        "label_smoothing": 0.0,
        "val_size": 0,
    }
    values = dataclasses.asdict(config)
    assert {name: values[name] for name in documented} == documented


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_know_their_name_and_their_network(name):
    config = create_recipe(name)
    assert config.recipe == name
    assert config.model in MODELS
    assert RECIPES[name].__doc__
