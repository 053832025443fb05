"""An exponential moving average of the weights, which often predicts better than the last ones."""

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from resnet_cifar100.models.factory import Model


class Ema:
    """Keeps `model`, a copy whose weights and statistics follow those of the one in training.

    Averaging of the weights is by Polyak and Juditsky 1992, https://doi.org/10.1137/0330046. The
    decay rises as (1 + step) / (10 + step) up to its final value, as TensorFlow has it
    (https://www.tensorflow.org/api_docs/python/tf/train/ExponentialMovingAverage), so that the
    random start is forgotten soon and the average is of use from the first epoch on.
    """

    def __init__(self, model: Model, decay: float) -> None:
        self.decay = decay
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self._averaged = _float_tensors(self.model)

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move the average one step towards `model`."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self._averaged, _float_tensors(model), 1 - decay)

    @torch.no_grad()
    def recalibrate(self, batches: Iterable[Tensor]) -> None:
        """Measure the statistics of the norms anew on batches of normalised images (N,3,H,W).

        Averaged weights see other features than the weights that were averaged, so that their norms
        need statistics of their own (Izmailov et al. 2018, https://arxiv.org/abs/1803.05407).
        """
        norms = [m for m in self.model.modules() if isinstance(m, nn.BatchNorm2d)]
        for norm in norms:
            norm.reset_running_stats()
            norm.train()
        for number, images in enumerate(batches, start=1):
            for norm in norms:
                norm.momentum = 1 / number  # so that the mean over all batches remains
            self.model(images)
        self.model.eval()


def _float_tensors(model: nn.Module) -> list[Tensor]:
    """Return parameters and running statistics; counters of batches are left out."""
    tensors = [*model.parameters(), *model.buffers()]
    return [tensor.detach() for tensor in tensors if tensor.is_floating_point()]
