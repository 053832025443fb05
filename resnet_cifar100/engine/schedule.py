"""What changes with the step: the learning rate and the size of the images, as pure functions."""

import math

from resnet_cifar100.config import Config


def lr_scale_at(step: int, config: Config, *, steps_per_epoch: int) -> float:
    """Return the share of the peak learning rate at a 0-based step, in 0..1.

    A linear rise over the warm-up (Goyal et al. 2017, https://arxiv.org/abs/1706.02677) ends at the
    peak; from there cosine (Loshchilov and Hutter 2017, https://arxiv.org/abs/1608.03983) or a
    straight line, as in airbench (models/speednet.py), falls to zero at the end of the last epoch.
    """
    warmup_steps = round(config.warmup_epochs * steps_per_epoch)
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    progress = (step - warmup_steps) / (config.epochs * steps_per_epoch - warmup_steps)
    if config.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * progress))
    if config.schedule == "linear":
        return 1 - progress
    return 1.0


def lr_at(step: int, config: Config, *, steps_per_epoch: int) -> float:
    """Return the learning rate of SGD at a 0-based step."""
    return config.lr * lr_scale_at(step, config, steps_per_epoch=steps_per_epoch)


def image_size_at(step: int, config: Config, *, steps_per_epoch: int) -> int:
    """Return the side in pixels of the images at a 0-based step: small ones first.

    Progressive resizing (Howard 2018, https://www.fast.ai/posts/2018-04-30-dawnbench-fastai.html):
    a step at 20 pixels costs two fifths of one at 32, and the early steps lose nothing by it.
    """
    progress = step / (config.epochs * steps_per_epoch)
    for size, share in zip(config.early_sizes, config.early_shares, strict=True):
        if progress < share:
            return size
    return config.image_size
