"""Sharpness-aware minimisation: step along the gradient of the worst place nearby.

SAM: Foret et al. 2020, https://arxiv.org/abs/2010.01412. ASAM, whose neighbourhood grows with each
weight: Kwon et al. 2021, https://arxiv.org/abs/2102.11600.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

_EPSILON = 1e-12
_ETA = 0.01  # the neighbourhood of a weight of zero


@contextmanager
def perturbed_weights(model: nn.Module, rho: float, *, is_adaptive: bool) -> Iterator[None]:
    """Move the weights up their gradients by the radius `rho` and clear these; afterwards back.

    Whatever the forward pass inside does to the buffers of the norms is undone too: their
    statistics are of the network that is trained.
    """
    named = {name: p for name, p in model.named_parameters() if p.grad is not None}
    weights: list[Tensor] = list(named.values())
    # That biases are not scaled, and _ETA, are of its authors: https://github.com/SamsungLabs/ASAM
    scales = [
        p.detach().abs() + _ETA if is_adaptive and name.endswith("weight") else torch.ones_like(p)
        for name, p in named.items()
    ]
    moved = [*weights, *model.buffers()]
    with torch.no_grad():
        kept = [tensor.clone() for tensor in moved]
        for weight, step in zip(weights, _perturbations(weights, scales, rho), strict=True):
            weight += step
    for weight in weights:
        weight.grad = None
    yield
    with torch.no_grad():
        torch._foreach_copy_(moved, kept)


def _perturbations(weights: list[Tensor], scales: list[Tensor], rho: float) -> tuple[Tensor, ...]:
    """Return the way up of each weight; all together are `rho` long, in these scales."""
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    scaled = torch._foreach_mul(gradients, scales)
    norm = torch.stack(torch._foreach_norm(scaled)).norm()
    return torch._foreach_mul(torch._foreach_mul(scaled, scales), rho / (norm + _EPSILON))
