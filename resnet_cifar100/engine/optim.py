"""The optimizers: SGD, and Muon for the filters of convolutions."""

from collections.abc import Callable, Sequence
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

    SGD has Nesterov's momentum where the settings say so, after Sutskever et al. 2013,
    https://proceedings.mlr.press/v28/sutskever13.html, but as torch has it: the learning rate of
    the moment multiplies all past gradients. Norms and biases can be left without decay, after He
    et al. 2019, https://arxiv.org/abs/1812.01187. Muon multiplies its matrices in `dtype`. Each
    group keeps its peak learning rate as `initial_lr`; `lr` is set anew at each step.
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
            banks = [bank for bank in group["params"] if bank.grad is not None]
            by_shape: dict[torch.Size, list[tuple[Tensor, Tensor]]] = {}
            for bank, step in zip(banks, self._add_momentum(banks, group["momentum"]), strict=True):
                by_shape.setdefault(bank.shape, []).append((bank, step))
            moved: list[Tensor] = []
            places: list[Tensor] = []
            for shape, pairs in by_shape.items():
                of_shape, steps_of_shape = zip(*pairs, strict=True)
                # As one tensor (B,D,k,k,C): few operations, on filters in memory order.
                steps = _stack(steps_of_shape)
                updates = orthogonalize(steps.flatten(2).to(self.dtype)).view_as(steps)
                filters = _stack(of_shape)
                norms = torch.linalg.vector_norm(filters, dim=(1, 2, 3, 4), keepdim=True)
                filters *= shape[0] ** 0.5 / norms
                filters -= group["lr"] * updates.to(filters.dtype)
                moved += filters.permute(0, 1, 4, 2, 3).unbind()
                places += of_shape
            torch._foreach_copy_(places, moved)

    def _add_momentum(self, banks: Sequence[Tensor], momentum: float) -> Sequence[Tensor]:
        """Add the gradients to their moving sums; return the Nesterov steps."""
        for bank in banks:
            if "momentum_buffer" not in self.state[bank]:
                self.state[bank]["momentum_buffer"] = torch.zeros_like(bank)
        moving = [self.state[bank]["momentum_buffer"] for bank in banks]
        gradients = [bank.grad for bank in banks if bank.grad is not None]
        torch._foreach_mul_(moving, momentum)
        torch._foreach_add_(moving, gradients)
        steps = torch._foreach_mul(moving, momentum)
        torch._foreach_add_(steps, gradients)
        return steps


def _stack(banks: Sequence[Tensor]) -> Tensor:
    """(D,C,k,k) of each bank -> (B,D,k,k,C), in memory the order of channels_last."""
    return torch.stack([bank.permute(0, 2, 3, 1) for bank in banks])


def orthogonalize(matrices: Tensor) -> Tensor:
    """Return matrices (B,M,N) with their singular values moved towards 1.

    Newton-Schulz: x becomes p(x x^T) x with a polynomial p, again and again; no decomposition. All
    those factors are polynomials of the first x x^T alone, so they (M,M) are multiplied with each
    other, and with x (M,N) at the end: four tenths fewer operations for speednet's banks. Zhang et
    al. 2026, https://dao-lab.ai/blog/2026/gram-newton-schulz, without restarts: three steps do not
    let errors grow.
    """
    is_wide = matrices.shape[1] <= matrices.shape[2]
    x: Tensor = matrices if is_wide else matrices.mT
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    gram: Tensor = x @ x.mT
    factor = product = _polynomial(gram)
    for _ in range(NEWTON_SCHULZ_STEPS - 1):
        gram = factor @ gram @ factor
        factor = _polynomial(gram)
        product = factor @ product
    x = product @ x
    return x if is_wide else x.mT


def _polynomial(gram: Tensor) -> Tensor:
    """Return a I + b G + c G^2 of each matrix G (B,M,M)."""
    a, b, c = NEWTON_SCHULZ
    result = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
    result.diagonal(dim1=1, dim2=2).add_(a)
    return result
