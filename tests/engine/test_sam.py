"""Sharpness-aware steps, against gradients taken by hand at the worst place nearby."""

import copy
import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import clip_grad_norm_

from resnet_cifar100.engine import step
from resnet_cifar100.engine.optim import create_optimizers
from resnet_cifar100.engine.sam import perturbed_weights
from resnet_cifar100.engine.schedule import lr_scale_at
from resnet_cifar100.engine.step import train_step, update
from tests.states import begun

RADIUS = {False: 0.2, True: 2.0}  # by whether it is measured in units of each weight


def perturbation(named, gradients, rho, *, is_adaptive):
    """rho T^2 g / |T g|, all as one vector: T is |w| + 0.01 for weights, 1 for biases."""
    units = [
        w.detach().abs() + 0.01 if is_adaptive and "weight" in name else torch.ones_like(w)
        for name, w in named
    ]
    pairs = list(zip(units, gradients, strict=True))
    length = math.sqrt(sum((u * g).double().square().sum().item() for u, g in pairs))
    return [rho * u**2 * g / length for u, g in pairs]


def distance(ours, expected):
    """The norm of all differences, as a share of that of all that is expected."""
    difference = [a - b for a, b in zip(ours, expected, strict=True)]
    ends = [torch.cat([t.flatten().double() for t in each]) for each in (difference, expected)]
    return (ends[0].norm() / ends[1].norm()).item()


def small_network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 5))


def begin(config, dataset, **changes):
    """Return the state before the first step, and the first batch."""
    config = dataclasses.replace(config, warmup_epochs=0, **changes)
    state, loader = begun(config, dataset)
    return state, next(loader.batches(0))


def loss_at(state, model, batch):
    images, labels = batch
    logits = model(state.preprocess(images))
    return F.cross_entropy(logits, labels, label_smoothing=state.config.label_smoothing)


def gradients_by_hand(state, batch):
    """Return the gradients where the weights are, and at the worst place nearby."""
    model, config = copy.deepcopy(state.model), state.config
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    weights = [weight for _, weight in named]
    here = torch.autograd.grad(loss_at(state, model, batch), weights)
    ways = perturbation(named, here, config.sam_rho, is_adaptive=config.sam_adaptive)
    with torch.no_grad():
        for weight, way in zip(weights, ways, strict=True):
            weight += way
    return here, torch.autograd.grad(loss_at(state, model, batch), weights)


class Keeper:
    """An optimizer that takes no step and keeps the gradients it was handed."""

    def __init__(self, model):
        self.model = model

    def step(self):
        self.gradients = [p.grad.clone() for p in self.model.parameters() if p.requires_grad]

    def zero_grad(self, set_to_none):
        pass


@pytest.mark.parametrize("is_adaptive", [False, True])
def test_every_weight_goes_up_its_gradient_and_comes_back_to_the_bit(is_adaptive):
    network, rho = small_network(), RADIUS[is_adaptive]
    images = torch.randn(8, 3, 6, 6)
    F.cross_entropy(network(images), torch.arange(8) % 5).backward()
    weights = list(network.parameters())
    before = [weight.detach().clone() for weight in weights]
    named = list(zip(dict(network.named_parameters()), before, strict=True))
    ways = perturbation(named, [w.grad.clone() for w in weights], rho, is_adaptive=is_adaptive)
    with perturbed_weights(network, rho, is_adaptive=is_adaptive):
        moves = [weight.detach() - start for weight, start in zip(weights, before, strict=True)]
        assert all(weight.grad is None for weight in weights)
    assert distance(moves, ways) < 1e-5
    assert all(map(torch.equal, weights, before))


def test_all_weights_together_move_by_the_radius():
    network = small_network()
    for weight in network.parameters():
        weight.grad = torch.randn_like(weight)
    before = torch.cat([p.detach().flatten() for p in network.parameters()])
    with perturbed_weights(network, 0.05, is_adaptive=False):
        after = torch.cat([p.detach().flatten() for p in network.parameters()])
    assert (after - before).norm().item() == pytest.approx(0.05, rel=1e-4)


@pytest.mark.parametrize("is_adaptive", [False, True])
def test_a_gradient_of_zero_leads_nowhere(is_adaptive):
    network = small_network()
    network[3].weight.data.zero_()
    for weight in network.parameters():
        weight.grad = torch.zeros_like(weight)
    network[0].bias.grad = None  # as of a weight that is not trained
    before = [weight.detach().clone() for weight in network.parameters()]
    with perturbed_weights(network, 0.1, is_adaptive=is_adaptive):
        assert all(map(torch.equal, network.parameters(), before))
    assert all(map(torch.equal, network.parameters(), before))


@pytest.mark.parametrize("is_adaptive", [False, True])
@pytest.mark.parametrize("name", ["tiny_config", "speedy_config"])
def test_a_step_is_handed_the_gradient_of_the_worst_place_nearby(
    name, is_adaptive, tiny_dataset, request
):
    state, batch = begin(
        request.getfixturevalue(name),
        tiny_dataset,
        dropout=0.0,
        grad_clip_norm=0.0,
        sam_rho=RADIUS[is_adaptive],
        sam_adaptive=is_adaptive,
    )
    here, worst = gradients_by_hand(state, batch)
    before = [weight.detach().clone() for weight in state.model.parameters()]
    keeper = Keeper(state.model)
    state.optimizers = [keeper]
    loss, _ = update(state, *batch, state.config.image_size)
    assert distance(keeper.gradients, worst) < 1e-3
    assert distance(here, worst) > 0.03
    assert all(map(torch.equal, state.model.parameters(), before))
    assert loss.item() == pytest.approx(loss_at(state, state.model, batch).item(), rel=1e-4)


@pytest.mark.parametrize(
    "changes", [{}, {"optimizer": "muon"}, {"grad_clip_norm": 0.05}], ids=["sgd", "muon", "clipped"]
)
def test_any_optimizer_steps_along_that_gradient(changes, tiny_config, tiny_dataset):
    settings = {"dropout": 0.0, "sam_rho": 0.2, "grad_clip_norm": 0.0, **changes}
    state, batch = begin(tiny_config, tiny_dataset, **settings)
    _, worst = gradients_by_hand(state, batch)
    expected = copy.deepcopy(state.model)
    for weight, gradient in zip(expected.parameters(), worst, strict=True):
        weight.grad = gradient.clone()
    if state.config.grad_clip_norm:
        clip_grad_norm_(expected.parameters(), state.config.grad_clip_norm)
    for optimizer in create_optimizers(expected, state.config):
        optimizer.step()
    before = [weight.detach().clone() for weight in state.model.parameters()]
    train_step(state, *batch)
    moves = [
        [weight.detach() - start for weight, start in zip(model.parameters(), before, strict=True)]
        for model in (state.model, expected)
    ]
    assert distance(*moves) < 1e-3


def test_the_norms_see_each_batch_once_and_from_where_the_weights_are(tiny_config, tiny_dataset):
    state, batch = begin(tiny_config, tiny_dataset, sam_rho=0.5)
    for seen in (1, 2):
        once = copy.deepcopy(state.model)
        once(state.preprocess(batch[0]))
        train_step(state, *batch)
        expected = dict(once.named_buffers())
        for name, buffer in state.model.named_buffers():
            assert torch.equal(buffer, expected[name]), name
            if name.endswith("num_batches_tracked"):
                assert buffer == seen


def test_without_a_radius_a_step_is_the_plain_one_to_the_bit(
    tiny_config, tiny_dataset, monkeypatch
):
    monkeypatch.setattr(step, "perturbed_weights", None)
    state, batch = begin(tiny_config, tiny_dataset, dropout=0.0)
    for _ in range(3):
        train_step(state, *batch)
    plain, _ = begin(tiny_config, tiny_dataset, dropout=0.0)
    (optimizer,) = plain.optimizers
    for number in range(3):
        for group in optimizer.param_groups:
            group["lr"] = 0.05 * lr_scale_at(number, plain.config, steps_per_epoch=8)
        loss_at(plain, plain.model, batch).backward()
        clip_grad_norm_(plain.model.parameters(), 5.0)
        optimizer.step()
        optimizer.zero_grad()
    expected = plain.model.state_dict()
    for name, tensor in state.model.state_dict().items():
        assert torch.equal(tensor, expected[name]), name
