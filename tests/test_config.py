import dataclasses
import json
from pathlib import Path

import pytest

from resnet_cifar100.cli.train import training_settings
from resnet_cifar100.config import Config
from resnet_cifar100.errors import ConfigError
from resnet_cifar100.limits import limits_of
from resnet_cifar100.models.factory import MODELS
from resnet_cifar100.recipes import RECIPES, create_recipe
from tests.conftest import REPOSITORY

INVALID = {
    "width": 0.2,
    "dropout": 1.0,
    "stochastic_depth": 1.0,
    "image_size": 33,
    "early_sizes": (32,),
    "early_shares": (0.5,),
    "dataset": "mnist",
    "schedule": "cosin",
    "precision": "fp8",
    "val_size": 150,
    "train_size": -100,
    "crop_padding": 17,
    "crop_fill": "mirror",
    "plain_epochs": 101,
    "batch_size": 1,
    "epochs": 0,
    "optimizer": "adam",
    "muon_lr": 0.0,
    "muon_momentum": 1.0,
    "lr": 0.0,
    "momentum": 1.0,
    "weight_decay": -1e-4,
    "warmup_epochs": 101,
    "label_smoothing": 1.0,
    "grad_clip_norm": -1.0,
    "sam_rho": -0.05,
    "ema_decay": 1.0,
    "ema_images": -1,
    "distillation": "dkdd",
    "distillation_weight": 0.0,
    "temperature": 0.0,
    "early_stopping_patience": -1,
    "seed": -1,
    "num_threads": -1,
    "checkpoint_minutes": -1.0,
    "max_hours": -1.0,
    "keep_checkpoints": 0,
    "log_steps": 0,
    "checkpoint_path": Path("model.pt"),
}
SINCE_FAST = {
    "width": 1.0,
    "early_sizes": (),
    "early_shares": (),
    "crop_fill": "zeros",
    "alternating_flip": False,
    "optimizer": "sgd",
    "muon_lr": 0.18,
    "muon_momentum": 0.6,
    "decay_norms": True,
}
SINCE_AUGMENT = {
    "stochastic_depth": 0.0,
    "squeeze_excitation": False,
    "zero_init": False,
    "augment": (),
    "plain_epochs": 0,
    "sam_rho": 0.0,
    "sam_adaptive": False,
    "ema_images": 0,
    "teacher": None,
    "distillation": "dkd",
    "distillation_weight": 0.5,
    "temperature": 4.0,
}


@pytest.mark.parametrize("field", INVALID)
def test_a_wrong_value_is_refused_with_its_flag_and_value(field):
    with pytest.raises(ConfigError) as refused:
        Config(**{field: INVALID[field]})
    assert "--" + field.replace("_", "-") in str(refused.value)
    assert str(INVALID[field]) in str(refused.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
@pytest.mark.parametrize(
    "field",
    [
        *("lr", "muon_lr", "weight_decay", "momentum", "muon_momentum", "label_smoothing", "width"),
        *("stochastic_depth", "sam_rho", "distillation_weight", "temperature"),
    ],
)
def test_no_setting_may_be_negative_infinite_or_nan(field, value):
    with pytest.raises(ConfigError):
        Config(**{field: value})


TOGETHER = [
    ({"ema_images": 500}, "--ema-images must be 0 without --ema-decay"),
    ({"ema_decay": 0.9, "ema_images": 50_001}, "--ema-images must be in 0 to 50000"),
    ({"distillation_weight": 1.01}, "--distillation-weight must be in"),
    (
        {"epochs": 3, "plain_epochs": 4},
        "--plain-epochs must be in 0 to 3, the epochs of the run",
    ),
    ({"plain_epochs": -1}, "--plain-epochs"),
    ({"momentum": 0.0, "nesterov": True}, "--nesterov must be false where momentum is 0"),
    ({"sam_adaptive": True}, "--sam-adaptive must be false without --sam-rho"),
    ({"ema_decay": 0.9, "ema_images": 1}, "--ema-images must be 0, or 2 or more"),
    ({"optimizer": "muon", "zero_init": True}, "--zero-init must be false with"),
]


@pytest.mark.parametrize(("settings", "words"), TOGETHER, ids=str)
def test_settings_that_do_not_go_together_are_refused(settings, words):
    with pytest.raises(ConfigError, match=words):
        Config(**settings)
    Config(epochs=3, plain_epochs=3, ema_decay=0.9, ema_images=50_000, distillation_weight=1.0)


def test_every_limit_is_tried():
    limited = {name for name, *_ in limits_of(Config())}
    assert limited <= {*INVALID}.union(*(settings for settings, _ in TOGETHER))


def test_early_stopping_needs_images_to_decide_on():
    with pytest.raises(ConfigError, match="--val-size"):
        Config(early_stopping_patience=3)
    Config(early_stopping_patience=3, val_size=5000)


@pytest.mark.parametrize("name", RECIPES)
def test_settings_survive_json(name):
    config = create_recipe(name)
    assert Config.from_json(config.to_json()) == config


def test_paths_and_tuples_survive_json():
    config = Config(teacher=Path("of/mine.pth"), augment=("cutout:16", "mixup"))
    again = Config.from_json(config.to_json())
    assert again == config
    assert isinstance(again.teacher, Path)
    assert isinstance(again.augment, tuple)
    assert Config.from_json(Config().to_json()).teacher is None


def test_the_folder_of_a_teacher_is_not_shown():
    config = Config(teacher=Path("/home/somebody/teacher.pth"))
    assert config.without_folders().teacher == Path("teacher.pth")
    assert Config().without_folders().teacher is None


@pytest.mark.parametrize(
    ("sizes", "shares", "flag"),
    [
        ((24, 20), (0.1, 0.2), "--early-sizes"),
        ((20, 20), (0.1, 0.2), "--early-sizes"),
        ((7,), (0.1,), "--early-sizes"),
        ((28,), (0.1,), "--early-sizes"),
        ((16, 20), (0.1,), "--early-shares"),
        ((16, 20), (0.2, 0.1), "--early-shares"),
        ((16, 20), (0.1, 0.1), "--early-shares"),
        ((16,), (0.0,), "--early-shares"),
        ((16,), (1.0,), "--early-shares"),
        ((16,), (float("nan"),), "--early-shares"),
    ],
    ids=str,
)
def test_early_sizes_rise_and_each_ends_at_its_share(sizes, shares, flag):
    with pytest.raises(ConfigError, match=flag):
        Config(image_size=28, early_sizes=sizes, early_shares=shares)
    Config(image_size=28, early_sizes=(8, 27), early_shares=(0.01, 0.99))


@pytest.mark.parametrize(
    "path", sorted(REPOSITORY.glob("records/*/config.json")), ids=lambda path: path.parent.name
)
def test_settings_of_a_published_run_still_load(path):
    values = json.loads(path.read_text())
    values.setdefault("kernels", values.pop("winograd", False))  # its name while there was but one
    loaded = json.loads(Config.from_json(path.read_text()).to_json())
    assert {name: loaded[name] for name in values} == values


@pytest.mark.parametrize(
    "since",
    [SINCE_FAST, SINCE_AUGMENT, {"kernels": False}],
    ids=["fast", "augment", "kernels"],
)
def test_settings_from_before_some_were_added_mean_what_they_meant(since):
    values = json.loads(Config().to_json())
    for name in since:
        del values[name]
    config = Config.from_json(json.dumps(values))
    assert {name: getattr(config, name) for name in since} == since


def test_unknown_settings_are_refused_by_name():
    values = json.loads(Config().to_json()) | {"learning_rate": 0.1}
    with pytest.raises(ConfigError, match="learning_rate"):
        Config.from_json(json.dumps(values))


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[1]", "3", '{"epochs": "ten"}', '{"log_file": 3}'),
        *('{"early_sizes": 20}', '{"early_sizes": ["a"], "early_shares": [0.5]}'),
        *('{"flip": "false"}', '{"compile": 1}', '{"epochs": 12.5}', '{"seed": true}'),
        *('{"lr": "high"}', '{"lr": true}', '{"model": 3}'),
        *('{"early_sizes": [20.5], "early_shares": [0.5]}', '{"early_sizes": [true]}'),
        *('{"teacher": 3}', '{"augment": 3}', '{"augment": [3]}', "[" * 100_000),
    ],
)
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


def test_early_sizes_and_their_shares_are_flags():
    growing = ["--early-sizes", "16", "28", "--early-shares", "0.1", "0.4"]
    config, _ = training_settings(["--recipe", "fast", *growing, "--width", "0.5"])
    assert config == dataclasses.replace(
        create_recipe("fast"), early_sizes=(16, 28), early_shares=(0.1, 0.4), width=0.5
    )
    plain, _ = training_settings(["--recipe", "fast", "--early-sizes", "--early-shares"])
    assert (plain.early_sizes, plain.early_shares) == ((), ())


def test_augmentation_and_a_teacher_are_flags():
    flags = ["--augment", "trivial_augment", "cutmix:1", "--teacher", "big.pth"]
    flags += ["--sam-rho", "1", "--sam-adaptive"]
    config, _ = training_settings(["--recipe", "quick", *flags, "--distillation", "kd"])
    expected = {
        "augment": ("trivial_augment", "cutmix:1"),
        "teacher": Path("big.pth"),
        "sam_rho": 1.0,
        "sam_adaptive": True,
        "distillation": "kd",
    }
    assert config == dataclasses.replace(create_recipe("quick"), **expected)
