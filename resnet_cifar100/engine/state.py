"""Everything a run changes as it goes, in one object; a checkpoint is this object on disk."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from resnet_cifar100.config import Config
from resnet_cifar100.data.loader import TrainLoader
from resnet_cifar100.data.transforms import Preprocess
from resnet_cifar100.engine.distill import Teacher
from resnet_cifar100.engine.ema import Ema
from resnet_cifar100.engine.metrics import EpochLosses
from resnet_cifar100.engine.optim import create_optimizers
from resnet_cifar100.errors import NonFiniteError
from resnet_cifar100.models.factory import Model, create_model
from resnet_cifar100.models.layers import use_kernels
from resnet_cifar100.models.speednet import SpeedNet
from resnet_cifar100.models.summary import check_image_sizes
from resnet_cifar100.parallel import mean_over_processes, share_gradients, share_norms
from resnet_cifar100.runtime import Runtime

if TYPE_CHECKING:
    from resnet_cifar100.engine.step import StepGraph

WHITENING_IMAGES = 5000


@dataclass
class History:
    """What was measured so far: a row an epoch, and the points of the loss curve."""

    epochs: list[dict[str, float]] = field(default_factory=list)
    steps: list[dict[str, float]] = field(default_factory=list)
    train_seconds: float = 0.0  # in training steps alone, over all sessions of the run
    warmup_seconds: float = 0.0  # compiling and the like before the first step, over all sessions

    @property
    def split(self) -> str:
        """The split that each epoch is measured on: val where images were held out, else test."""
        return "val" if self.epochs and "val/top1" in self.epochs[0] else "test"

    @property
    def held_out_top1(self) -> list[float]:
        """Top-1 on that split after each epoch."""
        return [row[f"{self.split}/top1"] for row in self.epochs]

    @property
    def top1_gap(self) -> float:
        """Train less held-out top-1 after the last epoch."""
        return self.epochs[-1]["train/top1"] - self.held_out_top1[-1]

    def best_epoch(self, key: str) -> int:
        """Return the index of the epoch with the highest `key`, the earliest of equals."""
        return max(range(len(self.epochs)), key=lambda epoch: self.epochs[epoch][key])


@dataclass
class TrainState:
    """Network, optimizer, average and position of a run; `step` counts finished updates."""

    config: Config
    runtime: Runtime
    steps_per_epoch: int
    batch_size: int
    model: Model
    forward: Callable[[Tensor], Tensor]
    preprocess: Preprocess
    optimizers: list[torch.optim.Optimizer]
    ema: Ema | None
    teacher: Teacher | None
    losses: EpochLosses
    history: History
    step: int = 0
    changes: list[str] = field(default_factory=list)  # of the training, when it was resumed
    graphs: dict[int, "StepGraph"] = field(default_factory=dict)  # by size of images, on a GPU

    @property
    def epoch(self) -> int:
        """The 0-based epoch that the next step belongs to."""
        return self.step // self.steps_per_epoch

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return self.config.epochs * self.steps_per_epoch

    @property
    def is_stopped_early(self) -> bool:
        """Whether val top-1 has not risen for `early_stopping_patience` epochs."""
        patience, epochs = self.config.early_stopping_patience, self.history.epochs
        if not (patience and epochs):
            return False
        return len(epochs) - 1 - self.history.best_epoch("val/top1") >= patience

    @property
    def has_unmeasured_epoch(self) -> bool:
        """Whether an epoch is trained that has no row yet."""
        measured = len(self.history.epochs) * self.steps_per_epoch
        return measured < self.step and self.step % self.steps_per_epoch == 0

    @property
    def is_finished(self) -> bool:
        """Whether no step is left to take and each epoch has its row."""
        is_last = self.step >= self.total_steps or self.is_stopped_early
        return is_last and not self.has_unmeasured_epoch

    @property
    def teacher_sha256(self) -> str | None:
        """SHA-256 of the file of the teacher, where there is one."""
        return self.teacher.sha256 if self.teacher else None

    @property
    def eval_model(self) -> Model:
        """The weights that predict: the moving average where there is one."""
        return self.ema.model if self.ema else self.model

    def tensors(self) -> dict[str, Tensor]:
        """Return every tensor that the next step depends on, by name, contiguous.

        Several processes have to call this together: their losses come in as the mean.
        """
        losses = {name: mean_over_processes(one) for name, one in vars(self.losses).items()}
        parts = {"model": self.model.state_dict(), "losses": losses}
        if self.ema:
            parts["ema"] = self.ema.model.state_dict()
        tensors = {f"{part}.{key}": t for part, named in parts.items() for key, t in named.items()}
        for index, slots in enumerate(self._slots()):
            tensors |= {f"optimizer.{index}.{key}": t for key, t in slots.items() if t is not None}
        return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}

    def _slots(self) -> list[dict[str, Tensor]]:
        """Return what the optimizers keep of each parameter, in the order of the parameters."""
        owners = {
            parameter: optimizer.state
            for optimizer in self.optimizers
            for group in optimizer.param_groups
            for parameter in group["params"]
        }
        return [owners[p][p] if p in owners else {} for p in self.model.parameters()]

    def check_finite(self) -> None:
        """Wait for the device, and refuse weights or statistics that are NaN or infinite.

        Raises:
            NonFiniteError: the message names the step.
        """
        if not all_finite(self.model.state_dict().values()):
            raise non_finite("a weight is no longer a finite number", self.step)

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Take over what `tensors` returned.

        Raises:
            KeyError, RuntimeError: for tensors of another network or other settings.
        """
        self.model.load_state_dict(_part(tensors, "model"))
        if self.ema:
            self.ema.model.load_state_dict(_part(tensors, "ema"))
        for name, tensor in _part(tensors, "losses").items():
            getattr(self.losses, name).copy_(tensor)
        saved = _part(tensors, "optimizer")
        for index, (parameter, slots) in enumerate(
            zip(self.model.parameters(), self._slots(), strict=True)
        ):
            names = [name for name in saved if name.startswith(f"{index}.")]
            for slot in {*slots, *(name.split(".", 1)[1] for name in names)}:
                # In place, where a captured graph looks for it; with the memory layout of the
                # parameter, which decides the kernel that adds the two, and so the last bit.
                if slots.get(slot) is None:
                    slots[slot] = torch.empty_like(parameter)
                slots[slot].copy_(saved.get(f"{index}.{slot}", torch.zeros(())))


def create_state(
    config: Config, runtime: Runtime, loader: TrainLoader, teacher: Teacher | None = None
) -> TrainState:
    """Return the state before the first step over `loader`.

    Raises:
        ConfigError: for an unknown network, what it does not have or images too small for it, and
            for --sync-norms without a GPU.
    """
    check_image_sizes(config)
    torch.manual_seed(config.seed)
    model = create_model(config.model_config).to(runtime.device)
    preprocess = Preprocess(config.image_size).to(runtime.device)
    if isinstance(model, SpeedNet):
        model.whiten(preprocess(loader.split.images[:WHITENING_IMAGES]))
    ema = Ema(model, config.ema_decay) if config.ema_decay else None
    if runtime.has_kernels:
        preprocess.uses_kernel = True
        use_kernels(model, runtime.autocast_dtype)
    if config.sync_norms:  # those of the average see one process alone
        share_norms(model, runtime.device)
    return TrainState(
        config=config,
        runtime=runtime,
        steps_per_epoch=len(loader),
        batch_size=loader.batch_size,
        model=model,
        forward=runtime.compile(share_gradients(model)),
        preprocess=preprocess,
        optimizers=create_optimizers(model, config, runtime.autocast_dtype),
        ema=ema,
        teacher=teacher,
        losses=EpochLosses(len(loader), runtime.device),
        history=History(),
    )


def all_finite(tensors: Iterable[Tensor]) -> Tensor:
    """Return whether no floating-point number in them is NaN or infinite, () bool on the device."""
    floats = [tensor for tensor in tensors if tensor.is_floating_point()]
    return torch.stack(torch._foreach_norm(floats, torch.inf)).isfinite().all()


def non_finite(what: str, step: int) -> NonFiniteError:
    """Return the error for what was found to be NaN or infinite."""
    return NonFiniteError(
        f"{what} at step {step}, so training stopped; the last good training state is kept. A new "
        "run with a lower --lr or with --grad-clip-norm 1 may help; --resume takes neither."
    )


def _part(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {
        key.removeprefix(f"{name}."): t for key, t in tensors.items() if key.startswith(f"{name}.")
    }
