"""Named recipes: settings of a run, with the claim and how it was measured in the docstring."""

import dataclasses
import shlex
from collections.abc import Callable

from resnet_cifar100.config import Config
from resnet_cifar100.errors import ConfigError


def reference() -> Config:
    """ResNet44V2 as in the document, to the letter; for a GPU. Not measured here yet.

    SGD 0.1 with momentum 0.9 and weight decay 5e-4, cosine, 100 epochs of batch 128, crop with
    padding 4, flip. The document has 74.86% at best. `python train.py --recipe reference --seed 0`,
    and 1 and 2, are what `make gpu-table` trains; on two Zen 5 cores one would take 3.5 hours
    (computed from its steps, docs/results.md).
    """
    return Config(recipe="reference", model="resnet44v2", compile=True)


def fast() -> Config:
    """The cheapest way to 75%: 75.67% +- 0.29 test top-1 in six minutes on two cores.

    `python train.py --recipe fast --seed 0`, and 1 and 2: 5:43 to 5:47 min; AMD EPYC (Zen 5, bf16),
    records/2026-11-30_fast-pairs-seed0 to -seed2. The recipe of the speedrun entry
    NAVIER-STOKED, see models/speednet.py, for a few more epochs.
    """
    return Config(
        recipe="fast",
        model="speednet",
        dropout=0.0,
        early_sizes=(20, 24),
        early_shares=(0.15, 0.5),
        crop_padding=2,
        crop_fill="reflect",
        alternating_flip=True,
        batch_size=1024,
        epochs=12,
        optimizer="muon",
        lr=1.38,
        nesterov=True,
        decay_norms=False,
        schedule="linear",
        warmup_epochs=3.0,
        label_smoothing=0.25,
        log_steps=12,
    )


def fast_resnet44v2() -> Config:
    """ResNet44V2 with the ideas of `fast`: 76.86% test top-1 in 42 min on two CPU cores with bf16.

    Twice as many epochs as `fast`, and TrivialAugment but for the last two. `python train.py
    --recipe fast_resnet44v2`, one seed; AMD EPYC (Zen 5),
    records/2026-11-30_resnet44v2-trivial-augment-seed0. With a teacher 77.85%, one seed, in 1:22:19
    and 38:51 min for the teacher, before the kernels: records/2026-11-28_resnet44v2-teacher-seed0.
    """
    return dataclasses.replace(
        fast(),
        recipe="fast_resnet44v2",
        model="resnet44v2",
        crop_padding=4,
        augment=("trivial_augment",),
        plain_epochs=2,
        batch_size=256,
        epochs=25,
        muon_lr=0.06,
        muon_momentum=0.8,
        lr=0.1,
        warmup_epochs=2.0,
        label_smoothing=0.2,
        log_steps=20,
    )


def strong() -> Config:
    """Meant to take ResNet44V2 to 80% in the document's 100 epochs; for a GPU. Not measured yet.

    TrivialAugment with Cutout, as its authors use it on CIFAR-100 (Mueller and Hutter 2021,
    https://arxiv.org/abs/2103.10158), and Muon in batches of 512: it learned more in four epochs
    than an untuned SGD, and larger batches use a GPU better (docs/log.md). `python train.py
    --recipe strong --seed 0`, and 1 and 2, are what `make gpu-table` trains.
    """
    return dataclasses.replace(
        reference(),
        recipe="strong",
        dropout=0.0,
        crop_fill="reflect",
        alternating_flip=True,
        augment=("trivial_augment", "cutout:16"),
        batch_size=512,
        optimizer="muon",
        muon_lr=0.06,
        muon_momentum=0.8,
        lr=0.2,
        nesterov=True,
        decay_norms=False,
        schedule="linear",
        warmup_epochs=5.0,
        label_smoothing=0.1,
    )


def distilled() -> Config:
    """The strong recipe with a larger network's answers besides the labels. Not measured yet.

    CutMix besides TrivialAugment, for a teacher can name any picture; it sees the same augmented
    images to the end (Beyer et al. 2021, https://arxiv.org/abs/2106.05237). `python train.py
    --recipe distilled --teacher FILE`; `make gpu-table` trains the teacher, resnet18, and three
    seeds.
    """
    return dataclasses.replace(
        strong(),
        recipe="distilled",
        augment=("trivial_augment", "cutmix"),
        label_smoothing=0.0,
        distillation="kd",
        distillation_weight=0.9,
    )


def quick() -> Config:
    """A first result in minutes: 62.92% +- 0.13 test top-1 in 50 s on two CPU cores with bf16.

    The fast recipe at half the width on images of 24 pixels. `python train.py --recipe quick
    --seed 0`, and 1 and 2; AMD EPYC, records/2026-11-30_quick-pairs-seed0 to -seed2.
    """
    return dataclasses.replace(
        fast(),
        recipe="quick",
        width=0.5,
        image_size=24,
        early_sizes=(16, 20),
        early_shares=(0.2, 0.5),
        batch_size=512,
        epochs=6,
        warmup_epochs=1.5,
    )


def smoke() -> Config:
    """Every stage of a run in seconds, and no result: two epochs over 1,000 images of 16 pixels."""
    return Config(
        recipe="smoke",
        model="resnet8x4_s2",
        image_size=16,
        train_size=1000,
        val_size=500,
        epochs=2,
        ema_decay=0.9,
        grad_clip_norm=5.0,
        early_stopping_patience=2,
        warmup_epochs=1.0,
        log_steps=2,
    )


RECIPES: dict[str, Callable[[], Config]] = {
    "fast": fast,
    "fast_resnet44v2": fast_resnet44v2,
    "reference": reference,
    "strong": strong,
    "distilled": distilled,
    "quick": quick,
    "smoke": smoke,
}


def create_recipe(name: str) -> Config:
    """Return the settings of a recipe.

    Raises:
        ConfigError: for a name that is not in RECIPES.
    """
    if name not in RECIPES:
        raise ConfigError(f"--recipe must be one of {', '.join(RECIPES)}, got {name}")
    return RECIPES[name]()


def shortened(recipe: Config, epochs: int) -> Config:
    """Return a recipe with so many epochs, half of them for its warm-up and plain ones at most."""
    return dataclasses.replace(
        recipe,
        epochs=epochs,
        warmup_epochs=min(recipe.warmup_epochs, epochs / 2),
        plain_epochs=min(recipe.plain_epochs, epochs // 2),
    )


def training_command(config: Config) -> str:
    """Return the command that trains with these settings: a recipe, and what differs from it."""
    recipe = RECIPES.get(config.recipe, reference)()  # a record may be older than its recipe's end
    if config.epochs < recipe.epochs:  # then the command line shortens more than --epochs
        recipe = dataclasses.replace(shortened(recipe, config.epochs), epochs=recipe.epochs)
    config = dataclasses.replace(config, recipe=recipe.recipe)
    words = ["--recipe", recipe.recipe]
    for field in dataclasses.fields(config):
        flag, value = f"--{field.name.replace('_', '-')}", getattr(config, field.name)
        if value == getattr(recipe, field.name):
            continue
        if isinstance(value, bool):
            words.append(flag if value else flag.replace("--", "--no-", 1))
        else:
            words += [flag, *map(str, value if isinstance(value, tuple) else [value])]
    return f"python train.py {shlex.join(words)}"
