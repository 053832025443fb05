"""Squeeze-and-excitation, stochastic depth and zero-init, against one block at a time by hand."""

import dataclasses

import pytest
import safetensors
import torch
import torch.nn.functional as F
from torch import nn

from resnet_cifar100.bundle import CLASS_MEANS
from resnet_cifar100.config import SHIPPED_MODEL, Config, ModelConfig
from resnet_cifar100.errors import ConfigError
from resnet_cifar100.models.factory import create_model
from resnet_cifar100.models.resnet import BasicBlockV1, StochasticDepth
from resnet_cifar100.models.summary import summarize
from tests.conftest import REPOSITORY

VERSIONS = pytest.mark.parametrize("name", ["resnet20", "resnet20v2"])
OPTIONS = {"squeeze_excitation": True, "stochastic_depth": 0.5, "zero_init": True}


def network(name, **options):
    torch.manual_seed(0)
    return create_model(ModelConfig(name=name, dropout=0.0, **options))


def blocks_of(model):
    return [block for stage in model.stages for block in stage]


def draw_statistics(model):
    """Give every norm weights and statistics that it might have after training."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.running_var):
                tensor.uniform_(0.5, 1.5)
            for tensor in (module.bias.data, module.running_mean):
                tensor.normal_()


def parts_by_hand(block, x):
    """Return the residual, without what the options add to it, and the shortcut."""
    if isinstance(block, BasicBlockV1):
        residual = block.norm2(block.conv2(F.relu(block.norm1(block.conv1(x)))))
        return residual, block.shortcut(x)
    activated = F.relu(block.norm1(x))
    shortcut = x if block.shortcut is None else block.shortcut(activated)
    return block.conv2(F.relu(block.norm2(block.conv1(activated)))), shortcut


def finish(block, total):
    return F.relu(total) if isinstance(block, BasicBlockV1) else total


def excited(residual, squeeze, excite):
    """Multiply each channel of each image by a number from the means of all: Hu et al. 2017."""
    result = residual.clone()
    for image in result:
        means = torch.stack([channel.sum() / channel.numel() for channel in image])
        inner = (squeeze.weight @ means + squeeze.bias).clamp(min=0)
        weights = 1 / (1 + (-(excite.weight @ inner + excite.bias)).exp())
        for channel, weight in zip(image, weights, strict=True):
            channel *= weight
    return result


@VERSIONS
@pytest.mark.parametrize("index", [0, 3], ids=["as wide", "wider"])
@torch.no_grad()
def test_squeeze_excitation_weighs_the_residual_before_it_is_added(name, index):
    model = network(name, squeeze_excitation=True).eval()
    draw_statistics(model)
    block = blocks_of(model)[index]
    x = torch.randn(3, 16, 8, 8)
    residual, shortcut = parts_by_hand(block, x)
    squeeze, excite = (m for m in block.modules() if isinstance(m, nn.Linear))
    expected = finish(block, excited(residual, squeeze, excite) + shortcut)
    assert torch.allclose(block(x), expected, atol=1e-4)
    assert not torch.allclose(block(x), finish(block, residual + shortcut), atol=1e-1)


@VERSIONS
@pytest.mark.parametrize("options", [{}, {"stochastic_depth": 0.2}], ids=["alone", "with depth"])
def test_gradients_reach_every_parameter_of_squeeze_excitation(name, options):
    model = network(name, squeeze_excitation=True, **options)
    model(torch.randn(16, 3, 16, 16)).square().sum().backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.abs().sum() > 0, parameter_name


@pytest.mark.parametrize(
    ("name", "squeezed", "blocks"),
    [
        ("resnet20", {16: 4, 32: 4, 64: 4}, 3),
        ("resnet20v2", {16: 4, 32: 4, 64: 4}, 3),
        ("resnet18", {64: 4, 128: 8, 256: 16, 512: 32}, 2),
    ],
)
def test_squeeze_excitation_adds_two_small_layers_a_block(name, squeezed, blocks):
    plain, rich = (
        summarize(ModelConfig(name=name, squeeze_excitation=flag)) for flag in (False, True)
    )
    down_and_up = [(wide * small + small, small * wide + wide) for wide, small in squeezed.items()]
    by_hand = blocks * sum(down + up for down, up in down_and_up)
    assert rich.parameters - plain.parameters == by_hand
    products = blocks * sum(2 * wide * small for wide, small in squeezed.items())
    assert rich.multiply_adds - plain.multiply_adds == products


@VERSIONS
def test_stochastic_depth_is_nothing_in_evaluation(name):
    plain, deep = network(name).eval(), network(name, stochastic_depth=0.9).eval()
    images = torch.randn(4, 3, 16, 16)
    assert torch.equal(deep(images), plain(images))
    deep.load_state_dict(plain.state_dict())


@VERSIONS
@torch.no_grad()
def test_the_share_of_dropped_residuals_rises_in_equal_steps(name):
    model = network(name, stochastic_depth=0.9).train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    x = model.stem(torch.randn(1000, 3, 4, 4))
    blocks = blocks_of(model)
    for number, block in enumerate(blocks, start=1):
        share = 0.9 * number / len(blocks)
        residual, shortcut = parts_by_hand(block, x)
        result, bare = block(x), finish(block, shortcut)
        is_dropped = (result == bare).flatten(1).all(dim=1)
        assert is_dropped.float().mean() == pytest.approx(share, abs=0.07)
        scaled = finish(block, residual / (1 - share) + shortcut)
        assert torch.allclose(result[~is_dropped], scaled[~is_dropped], rtol=1e-4, atol=1e-4)
        x = finish(block, residual + shortcut)


def test_a_residual_is_kept_or_dropped_as_a_whole_and_stays_the_same_on_average():
    torch.manual_seed(0)
    kept = StochasticDepth(0.3).train()(torch.ones(20_000, 2, 2, 2)).flatten(1)
    assert torch.equal(kept.amin(1), kept.amax(1))
    assert kept.unique().tolist() == pytest.approx([0, 1 / 0.7])
    assert kept.mean().item() == pytest.approx(1, abs=0.02)


def zeroed(block):
    return block.norm2.weight if isinstance(block, BasicBlockV1) else block.conv2.weight


@VERSIONS
@pytest.mark.parametrize("more", [{}, {"squeeze_excitation": True}], ids=["alone", "with SE"])
def test_with_zero_init_each_block_begins_as_its_shortcut_alone(name, more):
    model = network(name, zero_init=True, **more)
    x = model.stem(torch.randn(4, 3, 16, 16))
    for block in blocks_of(model):
        _, shortcut = parts_by_hand(block, x)
        assert torch.equal(block(x), finish(block, shortcut))
        x = finish(block, shortcut)
    assert all(zeroed(block).abs().sum() > 0 for block in blocks_of(network(name, **more)))


@VERSIONS
@pytest.mark.parametrize("more", [{}, {"squeeze_excitation": True}], ids=["alone", "with SE"])
def test_what_begins_at_zero_learns_and_after_a_step_all_else_does(name, more):
    model = network(name, zero_init=True, **more)
    images = torch.randn(16, 3, 16, 16)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    model(images).square().sum().backward()
    assert all(zeroed(block).grad.abs().sum() > 0 for block in blocks_of(model))
    optimizer.step()
    optimizer.zero_grad()
    model(images).square().sum().backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad.abs().sum() > 0, parameter_name


def test_zero_init_is_refused_with_muon():
    with pytest.raises(ConfigError, match=r"--zero-init.*muon"):
        Config(zero_init=True, optimizer="muon")
    assert Config(zero_init=True).model_config.zero_init


@pytest.mark.parametrize("option", OPTIONS)
def test_speednet_refuses_what_is_for_residual_blocks(option):
    config = ModelConfig(name="speednet", width=0.25)
    with pytest.raises(ConfigError, match="--" + option.replace("_", "-")):
        create_model(dataclasses.replace(config, **{option: OPTIONS[option]}))
    create_model(config)


def test_names_of_weights_are_those_of_files_from_before_the_options():
    with safetensors.safe_open(REPOSITORY / SHIPPED_MODEL, "pt") as file:
        names = set(file.keys()) - {CLASS_MEANS}
    assert set(create_model(ModelConfig(name="speednet")).state_dict()) == names
    norms = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
    block = blocks_of(network("resnet20v2"))[3]
    assert list(block.state_dict()) == [
        *(f"norm1.{name}" for name in norms),
        "conv1.weight",
        *(f"norm2.{name}" for name in norms),
        *("conv2.weight", "shortcut.weight"),
    ]


@VERSIONS
def test_stochastic_depth_and_zero_init_add_no_weights(name):
    names = list(network(name).state_dict())
    assert list(network(name, stochastic_depth=0.5, zero_init=True).state_dict()) == names
