"""The optimizers: SGD, and Muon for the filters of convolutions."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from resnet_cifar100.config import Config

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 3


def create_optimizers(
    model: nn.Module, config: Config, dtype: torch.dtype = torch.float32
) -> list[torch.optim.Optimizer]:
    """Return the optimizers that share the parameters of `model` out among them.

    SGD has the momentum of Nesterov as Sutskever et al. 2013 write it,
    https://proceedings.mlr.press/v28/sutskever13.html, where the settings say so. Muon multiplies
    its matrices in `dtype`. Each group keeps its peak learning rate as
    `initial_lr`; `lr` is set anew at each step.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    is_cuda = parameters[0].device.type == "cuda"
    optimizers: list[torch.optim.Optimizer] = []
    if config.optimizer == "muon":
        filters = [p for p in parameters if p.ndim == 4]
        parameters = [p for p in parameters if p.ndim != 4]
        optimizers.append(Muon(filters, config.muon_lr, config.muon_momentum, dtype))
    undecayed = [p for p in parameters if p.ndim == 1 and not config.decay_norms]
    decayed = [p for p in parameters if p.ndim > 1 or config.decay_norms]
    groups: list[dict[str, Any]] = [
        {"params": decayed},
        {"params": undecayed, "weight_decay": 0.0},
    ]
    sgd = torch.optim.SGD(
        [group for group in groups if group["params"]],
        lr=config.lr,
        momentum=config.momentum,
        nesterov=config.nesterov,
        weight_decay=config.weight_decay,
        fused=is_cuda,
    )
    optimizers.append(sgd)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
            if is_cuda:  # as a tensor, which a captured graph reads anew at each step
                group["lr"] = torch.tensor(group["lr"], device=parameters[0].device)
    return optimizers


class Muon(torch.optim.Optimizer):
    """Nesterov momentum whose update of each filter bank is made orthogonal.

    Jordan et al. 2024, https://kellerjordan.github.io/posts/muon, with the three Newton-Schulz
    steps and the constant norm of airbench: each bank (D,C,k,k) is kept at the norm sqrt(D), so
    that the learning rate alone says how far it turns.
    """

    def __init__(
        self, filters: list[nn.Parameter], lr: float, momentum: float, dtype: torch.dtype
    ) -> None:
        super().__init__(filters, {"lr": lr, "momentum": momentum})
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Move every filter bank that has a gradient; banks of one shape go together."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[tuple[Tensor, Tensor]]] = {}
            for bank in group["params"]:
                if bank.grad is not None:
                    direction = self._add_momentum(bank, bank.grad, group["momentum"])
                    by_shape.setdefault(bank.shape, []).append((bank, direction))
            for shape, alike in by_shape.items():
                matrices = torch.stack([direction.flatten(1) for _, direction in alike])
                updates = orthogonalize(matrices.to(self.dtype)).to(matrices.dtype)
                for (bank, _), update in zip(alike, updates, strict=True):
                    bank.mul_(shape[0] ** 0.5 / bank.norm())
                    bank.sub_(group["lr"] * update.view(shape))

    def _add_momentum(self, bank: Tensor, gradient: Tensor, momentum: float) -> Tensor:
        """Add the gradient to its moving sum; return the Nesterov step."""
        slots = self.state[bank]
        if "momentum_buffer" not in slots:
            slots["momentum_buffer"] = torch.zeros_like(bank)
        moving: Tensor = slots["momentum_buffer"].mul_(momentum).add_(gradient)
        return moving.mul(momentum).add_(gradient)


def orthogonalize(matrices: Tensor) -> Tensor:
    """Return matrices (B,M,N) with their singular values moved towards 1.

    An odd polynomial of each matrix, applied again and again (Newton-Schulz); no decomposition.
    """
    a, b, c = NEWTON_SCHULZ
    x: Tensor = matrices if matrices.shape[1] <= matrices.shape[2] else matrices.mT
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram: Tensor = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if x.shape[1:] == matrices.shape[1:] else x.mT
