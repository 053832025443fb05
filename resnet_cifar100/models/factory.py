"""The networks by name. A new one is one function that returns a module, and one line in MODELS."""

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch

from resnet_cifar100.config import ModelConfig
from resnet_cifar100.errors import ConfigError
from resnet_cifar100.models.resnet import ResNet
from resnet_cifar100.models.speednet import MIN_IMAGE_SIZE, SpeedNet


def _resnet(
    config: ModelConfig,
    *,
    version: Literal[1, 2],
    stem_width: int,
    widths: tuple[int, ...],
    depths: tuple[int, ...],
    strides: tuple[int, ...] = (1, 2, 2, 2),
) -> ResNet:
    return ResNet(
        version=version,
        stem_width=_scaled(stem_width, config),
        widths=[_scaled(width, config) for width in widths],
        depths=depths,
        strides=strides[: len(widths)],
        num_classes=config.num_classes,
        dropout=config.dropout,
        squeeze_excitation=config.squeeze_excitation,
        stochastic_depth=config.stochastic_depth,
        zero_init=config.zero_init,
    )


def _cifar_resnet(config: ModelConfig, *, version: Literal[1, 2], depth: int) -> ResNet:
    """Three stages of (depth - 2) / 6 blocks: He et al. 2015, section 4.2, with projections."""
    blocks = (depth - 2) // 6
    return _resnet(
        config, version=version, stem_width=16, widths=(16, 32, 64), depths=(blocks,) * 3
    )


def _wide_resnet(config: ModelConfig, *, depth: int, width: int) -> ResNet:
    """WRN-depth-width, without inner dropout: Zagoruyko and Komodakis 2016, arXiv:1605.07146."""
    blocks = (depth - 4) // 6
    widths = (16 * width, 32 * width, 64 * width)
    return _resnet(config, version=2, stem_width=16, widths=widths, depths=(blocks,) * 3)


def _speednet(config: ModelConfig) -> SpeedNet:
    if config.image_size < MIN_IMAGE_SIZE:
        raise ConfigError(
            f"--image-size and --early-sizes must be at least {MIN_IMAGE_SIZE} for speednet, "
            f"got {config.image_size}"
        )
    for option in ("squeeze_excitation", "stochastic_depth", "zero_init"):
        if getattr(config, option):
            raise ConfigError(f"--{option.replace('_', '-')} is for residual blocks: not speednet")
    first, second, third = (_scaled(width, config) for width in (64, 256, 640))
    inner = (_scaled(64, config), _scaled(192, config), _scaled(384, config))
    return SpeedNet(
        widths=(first, second, third),
        inner_widths=inner,
        num_classes=config.num_classes,
        dropout=config.dropout,
    )


def _scaled(channels: int, config: ModelConfig) -> int:
    """Return the channels at the asked width, a multiple of 16: what vector units like."""
    return channels if config.width == 1 else max(1, round(channels * config.width / 16)) * 16


Model = ResNet | SpeedNet
MODELS: dict[str, Callable[[ModelConfig], Model]] = {
    # The document: its table of stages, and the three-stage network behind its "~2.7M" and
    # "ResNet44".
    "resnet44v2": partial(
        _resnet, version=2, stem_width=32, widths=(32, 64, 128, 256), depths=(7, 7, 7, 3)
    ),
    "resnet44v2_slim": partial(
        _resnet, version=2, stem_width=32, widths=(32, 64, 128), depths=(7, 7, 7)
    ),
    # He et al. 2015 (v1) and 2016 (v2), the CIFAR family.
    **{f"resnet{d}": partial(_cifar_resnet, version=1, depth=d) for d in (20, 32, 56, 110)},
    **{f"resnet{d}v2": partial(_cifar_resnet, version=2, depth=d) for d in (20, 32, 56, 110)},
    # He et al. 2015, the ImageNet family, with the usual 3x3 stem for 32x32 images.
    "resnet18": partial(
        _resnet, version=1, stem_width=64, widths=(64, 128, 256, 512), depths=(2, 2, 2, 2)
    ),
    "resnet34": partial(
        _resnet, version=1, stem_width=64, widths=(64, 128, 256, 512), depths=(3, 4, 6, 3)
    ),
    "wrn_16_4": partial(_wide_resnet, depth=16, width=4),
    "wrn_28_10": partial(_wide_resnet, depth=28, width=10),
    # Widths of the resnet8x4 used in distillation (Tian et al. 2020,
    # https://arxiv.org/abs/1910.10699), but v2 and with a stride in the first stage too, which
    # makes it four times cheaper: the network of the smoke recipe.
    "resnet8x4_s2": partial(
        _resnet,
        version=2,
        stem_width=32,
        widths=(64, 128, 256),
        depths=(1, 1, 1),
        strides=(2, 2, 2),
    ),
    "speednet": _speednet,
}


def create_model(config: ModelConfig) -> Model:
    """Return the named network, (N,3,H,W) -> (N,K), initialised from torch's global generator.

    Raises:
        ConfigError: for a name that is not in MODELS, or a size that the network cannot take.
    """
    if config.name not in MODELS:
        raise ConfigError(f"--model must be one of {', '.join(MODELS)}, got {config.name}")
    model = MODELS[config.name](config)
    # oneDNN runs these convolutions fastest so (docs/results.md), and cuDNN by its documentation.
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]
