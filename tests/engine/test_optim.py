import dataclasses
import itertools

import numpy as np
import pytest
import torch
from torch import nn

from resnet_cifar100.config import Config, ModelConfig
from resnet_cifar100.engine.optim import Muon, create_optimizers, orthogonalize
from resnet_cifar100.engine.schedule import lr_scale_at
from resnet_cifar100.engine.step import train_step
from resnet_cifar100.models.factory import create_model
from tests.reference import muon_step, orthogonalized
from tests.states import begun

SHAPES = [(1, 16, 16), (3, 24, 96), (2, 96, 24), (4, 1, 9), (1, 64, 576)]
MODELS = ["resnet8x4_s2", "speednet"]


TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 0.06}  # bf16 has 8 bits


def distance(ours, expected):
    """The Frobenius norm of the difference, as a share of that of what is expected."""
    return np.linalg.norm(ours.double().numpy() - expected) / np.linalg.norm(expected)


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("size", [0.01, 1.0, 1e4])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_orthogonalizing_a_batch_is_the_polynomial_of_each_matrix(shape, size, dtype):
    matrices = (size * draw(*shape)).to(dtype)
    results = orthogonalize(matrices)
    assert results.dtype == matrices.dtype
    assert results.shape == matrices.shape
    for result, matrix in zip(results, matrices, strict=True):
        expected = orthogonalized(matrix.double().numpy())
        assert distance(result, expected) < TOLERANCE[dtype]


@pytest.mark.parametrize("shape", [(5, 16, 144), (5, 144, 16), (2, 64, 576)], ids=str)
def test_the_singular_values_come_close_to_1(shape):
    values = torch.linalg.svdvals(orthogonalize(draw(*shape)))
    assert values.min() > 0.3
    assert values.max() < 1.35


def test_the_singular_vectors_stay():
    rows, columns = torch.linalg.qr(draw(12, 12))[0], torch.linalg.qr(draw(40, 12, seed=1))[0]
    matrix = rows @ torch.diag(torch.linspace(1, 3, 12)) @ columns.T
    left = rows.T @ orthogonalize(matrix[None])[0] @ columns
    assert (left - torch.diag(left.diag())).abs().max() < 0.05
    assert left.diag().min() > 0.3


def test_a_matrix_of_zeros_stays_zero():
    assert torch.equal(orthogonalize(torch.zeros(2, 8, 18)), torch.zeros(2, 8, 18))


def banks(*shapes):
    return [nn.Parameter(draw(*shape, seed=index)) for index, shape in enumerate(shapes)]


def take_steps(parameters, gradients, *, lr, momentum=0.6, dtype=torch.float32):
    muon = Muon(parameters, lr, momentum, dtype)
    for step in gradients:
        for parameter, gradient in zip(parameters, step, strict=True):
            parameter.grad = gradient.clone()
        muon.step()
    return [parameter.detach() for parameter in parameters]


@pytest.mark.parametrize("momentum", [0.0, 0.6])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_muon_agrees_with_one_filter_bank_at_a_time(dtype, momentum):
    shapes = [(16, 8, 3, 3), (8, 16, 1, 1), (16, 8, 3, 3), (32, 4, 2, 2)]
    parameters = banks(*shapes)
    before = [parameter.detach().numpy().copy() for parameter in parameters]
    gradients = [
        [draw(*shape, seed=9 * n + step) for n, shape in enumerate(shapes)] for step in range(3)
    ]
    after = take_steps(parameters, gradients, lr=0.5, momentum=momentum, dtype=dtype)
    for index, bank in enumerate(before):
        expected, moving = bank.astype(np.float64), np.zeros(bank.shape)
        for step in gradients:
            expected, moving = muon_step(
                expected, step[index].numpy(), moving, lr=0.5, momentum=momentum
            )
        assert after[index].dtype == torch.float32
        assert distance(after[index], expected) < TOLERANCE[dtype]


def test_banks_of_one_shape_do_not_touch_each_other():
    gradients = [[draw(8, 4, 3, 3, seed=step), draw(8, 4, 3, 3, seed=10 + step)] for step in (1, 2)]
    together = take_steps(banks(*2 * [(8, 4, 3, 3)]), gradients, lr=0.2)
    for index in range(2):
        alone = [banks(*2 * [(8, 4, 3, 3)])[index]]
        own = [[step[index]] for step in gradients]
        (result,) = take_steps(alone, own, lr=0.2)
        assert torch.allclose(result, together[index], atol=1e-6)


def test_a_bank_without_gradient_stays():
    moved, still = banks((8, 4, 3, 3), (8, 4, 3, 3))
    before = still.detach().clone()
    moved.grad = draw(8, 4, 3, 3, seed=5)
    Muon([moved, still], 0.2, 0.6, torch.float32).step()
    assert torch.equal(still, before)


def small_model(name):
    return create_model(ModelConfig(name=name, width=0.25))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("optimizer", ["sgd", "muon"])
@pytest.mark.parametrize("decay_norms", [True, False])
def test_every_trainable_parameter_has_one_optimizer(name, optimizer, decay_norms):
    model = small_model(name)
    optimizers = create_optimizers(model, Config(optimizer=optimizer, decay_norms=decay_norms))
    groups = itertools.chain.from_iterable(each.param_groups for each in optimizers)
    owned = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(owned) == sorted(id(p) for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("name", MODELS)
def test_muon_has_the_filters_and_sgd_the_rest(name):
    model = small_model(name)
    config = Config(optimizer="muon", muon_lr=0.3, muon_momentum=0.7, lr=2.0, momentum=0.8)
    muon, sgd = create_optimizers(model, config)
    assert isinstance(muon, Muon)
    (group,) = muon.param_groups
    filters = [p for p in model.parameters() if p.ndim == 4 and p.requires_grad]
    assert [id(p) for p in group["params"]] == [id(p) for p in filters]
    assert (group["lr"], group["initial_lr"], group["momentum"]) == (0.3, 0.3, 0.7)
    assert isinstance(sgd, torch.optim.SGD)
    for group in sgd.param_groups:
        assert (group["lr"], group["initial_lr"], group["momentum"]) == (2.0, 2.0, 0.8)


@pytest.mark.parametrize("name", MODELS)
def test_sgd_alone_has_everything_and_decays_it(name):
    (sgd,) = create_optimizers(small_model(name), Config(nesterov=True))
    assert isinstance(sgd, torch.optim.SGD)
    (group,) = sgd.param_groups
    assert (group["weight_decay"], group["nesterov"], group["initial_lr"]) == (5e-4, True, 0.1)


@pytest.mark.parametrize("optimizer", ["sgd", "muon"])
@pytest.mark.parametrize("decay_norms", [True, False])
def test_norms_and_biases_shrink_only_where_asked(decay_norms, optimizer):
    model = small_model("resnet8x4_s2")
    nn.init.ones_(model.head.bias)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    config = Config(optimizer=optimizer, decay_norms=decay_norms, weight_decay=0.1, lr=1.0)
    for each in create_optimizers(model, config):
        each.step()
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            share = 0.9 if decay_norms else 1.0
        elif parameter.ndim == 4 and optimizer == "muon":
            continue
        else:
            share = 0.9
        assert torch.allclose(parameter, share * before[name]), name


def test_each_step_sets_the_rates_of_both_optimizers(speedy_config, tiny_dataset):
    config = dataclasses.replace(speedy_config, muon_lr=0.3, lr=2.0)
    state, loader = begun(config, tiny_dataset)
    for images, labels in loader.batches(0):
        scale = lr_scale_at(state.step, config, steps_per_epoch=8)
        train_step(state, images, labels)
        muon, *others = [group for each in state.optimizers for group in each.param_groups]
        assert (muon["lr"], muon["initial_lr"]) == (pytest.approx(0.3 * scale), 0.3)
        for group in others:
            assert (group["lr"], group["initial_lr"]) == (pytest.approx(2.0 * scale), 2.0)
