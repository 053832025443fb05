"""What a step draws at random depends on the seed, the step and the process, on nothing else."""

import dataclasses

import pytest
import torch

from resnet_cifar100.engine import step
from resnet_cifar100.engine.step import train_step
from tests.states import begun


@pytest.fixture
def losses_of_steps(tiny_config, tiny_dataset, monkeypatch):
    """Return a function from numbers of steps to the losses that one batch has in them.

    The weights are put back after each step, so that the losses differ in what is dropped alone.
    """
    state, loader = begun(tiny_config, tiny_dataset)
    images, labels = next(loader.batches(0))
    weights = {name: tensor.clone() for name, tensor in state.model.state_dict().items()}

    def losses(*steps: int, rank: int = 0) -> list[float]:
        monkeypatch.setattr(step, "rank", lambda: rank)
        found = []
        for number in steps:
            state.model.load_state_dict(weights)
            state.model.train()
            state.step = number
            train_step(state, images, labels)
            found += state.losses.read(number, number + 1)
        return found

    return losses


def test_the_first_weights_depend_on_the_seed_alone(tiny_config, tiny_dataset):
    def first_weights(seed: int) -> torch.Tensor:
        torch.rand(seed + 1)  # something else is drawn before
        state, _ = begun(dataclasses.replace(tiny_config, seed=seed), tiny_dataset)
        return next(state.model.parameters())

    assert torch.equal(first_weights(0), first_weights(0))
    assert not torch.equal(first_weights(0), first_weights(1))


def test_draws_do_not_depend_on_what_was_drawn_before(losses_of_steps):
    in_order = losses_of_steps(3, 4)
    torch.manual_seed(999)
    assert losses_of_steps(4, 3) == in_order[::-1]


def test_draws_differ_from_step_to_step_and_from_process_to_process(losses_of_steps):
    losses = [*losses_of_steps(3, 4), *losses_of_steps(3, 4, rank=1)]
    assert len({*losses}) == 4
