"""The optimizer, and the learning rate as a function of the step."""

import math

import torch
from torch import nn

from resnet_cifar100.config import Config


def create_optimizer(model: nn.Module, config: Config) -> torch.optim.Optimizer:
    """Return SGD over all parameters of `model`; its learning rate is set anew at each step."""
    return torch.optim.SGD(
        model.parameters(),
        lr=config.lr,
        momentum=config.momentum,
        nesterov=config.nesterov,
        weight_decay=config.weight_decay,
    )


def lr_at(step: int, config: Config, *, steps_per_epoch: int) -> float:
    """Return the learning rate of a 0-based step.

    A linear rise over the warm-up ends at the peak; from there cosine (Loshchilov and Hutter 2017,
    https://arxiv.org/abs/1608.03983) or a straight line falls to zero at the end of the last epoch.
    """
    warmup_steps = round(config.warmup_epochs * steps_per_epoch)
    if step < warmup_steps:
        return config.lr * (step + 1) / (warmup_steps + 1)
    progress = (step - warmup_steps) / (config.epochs * steps_per_epoch - warmup_steps)
    if config.schedule == "cosine":
        return config.lr * 0.5 * (1 + math.cos(math.pi * progress))
    if config.schedule == "linear":
        return config.lr * (1 - progress)
    return config.lr
