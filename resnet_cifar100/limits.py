"""What the settings of a run may be, in numbers and in words."""

import math
from collections.abc import Iterator
from typing import Any

from resnet_cifar100.constants import IMAGE_SIZE

Settings = Any  # a Config, whose module imports this one
Limit = tuple[str, bool, str]  # a setting, whether its value is allowed, what is
WIDEST = 8.0  # that --width allows


def limits_of(config: Settings) -> Iterator[Limit]:
    """Yield each limit of these settings and whether it is kept."""
    yield "epochs", 1 <= config.epochs <= 100_000, "in 1 to 100000"  # others are measured by it
    yield from _network(config)
    yield from _images(config)
    yield from _optimisation(config)
    yield from _regularisation(config)
    yield from _machine(config)


def idle_settings(config: Settings) -> dict[str, str]:
    """Return each setting that would do nothing in this run, with the flag that it needs."""
    needs = {
        "--optimizer muon": (config.optimizer == "muon", ["muon_lr", "muon_momentum"]),
        "--weight-decay": (config.weight_decay > 0, ["decay_norms"]),
        "--crop-padding": (config.crop_padding > 0, ["crop_fill"]),
        "--flip": (config.flip, ["alternating_flip"]),
        "--augment": (bool(config.augment), ["plain_epochs"]),
        "--teacher": (
            config.teacher is not None,
            ["distillation", "distillation_weight", "temperature"],
        ),
    }
    return {name: flag for flag, (is_on, names) in needs.items() if not is_on for name in names}


def _network(config: Settings) -> Iterator[Limit]:
    sizes, shares = config.early_sizes, config.early_shares
    is_rising = [*sizes, config.image_size] == sorted({*sizes, config.image_size})
    yield "width", 0.25 <= config.width <= WIDEST, f"in 0.25 to {WIDEST:g}"
    yield "dropout", 0 <= config.dropout < 1, "in [0, 1)"
    yield "stochastic_depth", 0 <= config.stochastic_depth < 1, "in [0, 1)"
    yield "image_size", 8 <= config.image_size <= IMAGE_SIZE, "in 8 to 32"
    yield (
        "early_sizes",
        is_rising and all(size >= 8 for size in sizes),
        f"rising, from 8 to below --image-size {config.image_size}",
    )
    yield (
        "early_shares",
        len(shares) == len(sizes)
        and list(shares) == sorted(set(shares))
        and all(0 < share < 1 for share in shares),
        f"{len(sizes)} rising shares in (0, 1), one for each of --early-sizes",
    )


def _images(config: Settings) -> Iterator[Limit]:
    most = 50_000 - config.val_size
    yield (
        "val_size",
        _is_share(config.val_size, 40_000),
        "0 or a multiple of 100 in 100 to 40000",
    )
    yield (
        "train_size",
        _is_share(config.train_size, most),
        f"0 or a multiple of 100 in 100 to {most}",
    )
    yield "crop_padding", 0 <= config.crop_padding <= 16, "in 0 to 16"
    yield "plain_epochs", 0 <= config.plain_epochs <= config.epochs, _of_epochs(config)


def _optimisation(config: Settings) -> Iterator[Limit]:
    yield "batch_size", 2 <= config.batch_size <= 50_000, "in 2 to 50000"
    yield "muon_lr", 0 < config.muon_lr < math.inf, "a positive number"
    yield "muon_momentum", 0 <= config.muon_momentum < 1, "in [0, 1)"
    yield "lr", 0 < config.lr < math.inf, "a positive number"
    yield "momentum", 0 <= config.momentum < 1, "in [0, 1)"
    yield "nesterov", config.momentum > 0 or not config.nesterov, "false where momentum is 0"
    yield "weight_decay", 0 <= config.weight_decay < math.inf, "0 or a positive number"
    yield "warmup_epochs", 0 <= config.warmup_epochs <= config.epochs, _of_epochs(config)
    yield "grad_clip_norm", 0 <= config.grad_clip_norm < math.inf, "0 or a positive number"
    yield "sam_rho", 0 <= config.sam_rho < math.inf, "0 or a positive number"
    yield "sam_adaptive", config.sam_rho > 0 or not config.sam_adaptive, "false without --sam-rho"
    # Muon keeps each bank of filters at one norm, which the zeros of a v2 block cannot have.
    is_possible = config.optimizer != "muon" or not config.zero_init
    yield "zero_init", is_possible, "false with --optimizer muon"


def _regularisation(config: Settings) -> Iterator[Limit]:
    yield "label_smoothing", 0 <= config.label_smoothing < 1, "in [0, 1)"
    yield "ema_decay", 0 <= config.ema_decay < 1, "in [0, 1)"
    is_used = config.ema_decay > 0 or config.ema_images == 0
    yield "ema_images", is_used, "0 without --ema-decay"
    yield "ema_images", 0 <= config.ema_images <= 50_000, "in 0 to 50000"
    yield "ema_images", config.ema_images != 1, "0, or 2 or more: one image has no variance"
    yield "distillation_weight", 0 < config.distillation_weight <= 1, "in (0, 1]"
    yield "temperature", 0.5 <= config.temperature < math.inf, "0.5 or more"
    patience = config.early_stopping_patience
    yield "early_stopping_patience", patience >= 0, "0 or more"
    # The test set may not decide when to stop.
    is_decided = not patience or config.val_size > 0
    yield "early_stopping_patience", is_decided, "0 without --val-size (for example 5000)"


def _machine(config: Settings) -> Iterator[Limit]:
    yield "seed", 0 <= config.seed < 2**32, "in 0 to 4294967295"
    yield "num_threads", 0 <= config.num_threads <= 1024, "in 0 to 1024"
    yield "checkpoint_minutes", config.checkpoint_minutes >= 0, "0 or more"
    yield "max_hours", 0 <= config.max_hours < math.inf, "0 or a positive number"
    yield "keep_checkpoints", 1 <= config.keep_checkpoints <= 1000, "in 1 to 1000"
    yield "log_steps", config.log_steps >= 1, "1 or more"
    is_pth = config.checkpoint_path.suffix == ".pth"
    yield "checkpoint_path", is_pth, "a file name ending in .pth"


def _of_epochs(config: Settings) -> str:
    return f"in 0 to {config.epochs}, the epochs of the run"


def _is_share(count: int, most: int) -> bool:
    """Whether `count` images can be drawn with the same number of each of the 100 classes."""
    return count == 0 or (100 <= count <= most and count % 100 == 0)
