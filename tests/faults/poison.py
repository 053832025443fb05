"""Faults that are put into a training from inside, by the process that has them."""

import dataclasses
import hashlib
import os
import signal
from dataclasses import dataclass
from pathlib import Path

import torch

from resnet_cifar100.engine import step, trainer
from resnet_cifar100.engine.state import TrainState
from resnet_cifar100.parallel import rank
from tests.faults import training


@dataclass(frozen=True)
class Kill:
    """Ends each process with SIGKILL when it is about to take a step."""

    step: int

    def __call__(self) -> None:
        take = trainer.train_step

        def take_or_die(state, images, targets):
            if state.step == self.step:
                os.kill(os.getpid(), signal.SIGKILL)
            take(state, images, targets)

        trainer.train_step = take_or_die


@dataclass(frozen=True)
class KillOne(Kill):
    """Ends one process alone."""

    who: int = 1

    def __call__(self) -> None:
        if rank() == self.who:
            super().__call__()


@dataclass(frozen=True)
class Poison:
    """Puts a value somewhere at a step of one process; both leave a hash of weights beside.

    The hash stands in `folder` before the step, and is named after the rank; after the step, were
    it taken, there would be a second one.
    """

    value: float
    where: str
    who: int
    step: int
    folder: Path

    def __call__(self) -> None:
        backward = step._backward

        def poisoned(state, images, targets, image_size):
            self.note(state)
            if (state.step, rank()) != (self.step, self.who):
                return backward(state, images, targets, image_size)
            preprocess = state.preprocess
            if self.where == "input":
                state.preprocess = lambda *given: preprocess(*given).fill_(self.value)
            loss, logits = backward(state, images, targets, image_size)
            state.preprocess = preprocess
            if self.where == "gradient":
                next(state.model.parameters()).grad[0, 0, 0, 0] = self.value
            if self.where == "norm":
                next(b for b in state.model.buffers() if b.ndim)[0] = self.value
            return torch.full_like(loss, self.value) if self.where == "loss" else loss, logits

        step._backward = poisoned
        refuse = step._refuse_non_finite

        def refuse_and_note(state, loss):
            try:
                refuse(state, loss)
            finally:
                self.note(state)

        step._refuse_non_finite = refuse_and_note

    def note(self, state: TrainState) -> None:
        """Keep a hash of the weights for each step."""
        sha256 = hashlib.sha256()
        for parameter in state.model.parameters():
            sha256.update(parameter.detach().numpy().tobytes())
        name = f"weights-{rank()}-{state.step}-{sha256.hexdigest()[:16]}"
        (self.folder / name).touch()


@dataclass(frozen=True)
class FrozenNorms:
    """Leaves the statistics of norms alone, which otherwise depend on how batches are shared."""

    kill: Kill | None = None

    def __call__(self) -> None:
        create = trainer.create_state

        def create_frozen(*given):
            state = create(*given)
            for norm in state.model.modules():
                if isinstance(norm, torch.nn.BatchNorm2d):
                    norm.eval()
                    norm.train = lambda mode=True: None
            return state

        trainer.create_state = create_frozen
        if self.kill:
            self.kill()


@dataclass(frozen=True)
class OtherData:
    """Gives one process a data set of another title."""

    who: int = 1

    def __call__(self) -> None:
        if rank() == self.who:
            load = training.load_dataset
            training.load_dataset = lambda config: dataclasses.replace(
                load(config), title="CIFAR-100"
            )
