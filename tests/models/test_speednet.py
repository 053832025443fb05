import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from resnet_cifar100.config import ModelConfig
from resnet_cifar100.data.transforms import Preprocess
from resnet_cifar100.engine.step import train_step
from resnet_cifar100.errors import ConfigError
from resnet_cifar100.models.factory import create_model
from resnet_cifar100.models.speednet import PooledGroup
from resnet_cifar100.models.summary import count_parameters, summarize
from resnet_cifar100.recipes import create_recipe
from tests.states import begun

WIDTHS, INNER_WIDTHS = (64, 256, 640), (64, 192, 384)
SPEEDNET = ModelConfig(name="speednet", width=0.25, dropout=0.0)


def small_speednet():
    torch.manual_seed(0)
    return create_model(SPEEDNET)


def test_the_parameters_are_those_counted_by_hand():
    (a, b, c), (x, y, z) = WIDTHS, INNER_WIDTHS
    stem = 3 * 2 * 2 * 24 + 24
    first = 24 * a * 9 + a * x + x * a
    second = a * b * 9 + b * y * 9 + y * b
    third = b * c * 4 + c * z * 9 + z * c * 9
    norms = 2 * (a + x + a + b + y + b + c + z + c)
    by_hand = stem + first + second + third + norms + c * 100
    assert count_parameters(create_model(ModelConfig(name="speednet"))) == by_hand


def test_the_network_of_recipe_fast_takes_less_than_12_mb_in_16_bits():
    assert 2 * summarize(create_recipe("fast").model_config).parameters < 12e6


@pytest.mark.parametrize("size", [16, 20, 24, 32])
def test_every_size_from_16_on_works(size):
    config = dataclasses.replace(SPEEDNET, image_size=size)
    logits = create_model(config)(torch.randn(4, 3, size, size))
    assert logits.shape == (4, 100)
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("size", [8, 15])
def test_smaller_images_are_refused(size):
    with pytest.raises(ConfigError, match=f"at least 16.*{size}"):
        create_model(dataclasses.replace(SPEEDNET, image_size=size))


@pytest.mark.parametrize(
    ("name", "width", "channels"),
    [
        ("resnet44v2", 0.5, {16, 32, 64, 128}),
        ("resnet44v2", 1.3, {48, 80, 160, 336}),
        ("resnet20", 0.25, {16}),
        ("resnet20", 2.0, {32, 64, 128}),
        *(
            ("speednet", w, {24, *(16 * round(w * c / 16) for c in (*WIDTHS, *INNER_WIDTHS))})
            for w in (0.25, 0.8, 1.0, 2.0)
        ),
    ],
)
def test_width_multiplies_the_channels_in_steps_of_16(name, width, channels):
    model = create_model(ModelConfig(name=name, width=width))
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert {convolution.out_channels for convolution in convolutions} == channels


def test_the_whitened_stem_makes_patches_uncorrelated_with_unit_variance():
    model, noise = small_speednet(), torch.randn(500, 3, 13, 13)
    images = F.avg_pool2d(noise, 2, stride=1) + 0.5 * noise[:, :, 1:, 1:]
    images[:, 1] += 2 * images[:, 0] + 3
    model.whiten(images)
    with torch.no_grad():
        outputs = model.stem(images)  # (N,24,11,11)
    covariance = outputs[:, :12].transpose(0, 1).flatten(1).cov()
    assert torch.allclose(covariance, torch.eye(12), atol=0.02)
    assert torch.allclose(outputs[:, 12:], -outputs[:, :12], atol=1e-4)


def test_a_run_whitens_with_its_training_images_and_the_stem_stays_so(speedy_config, tiny_dataset):
    state, loader = begun(speedy_config, tiny_dataset)
    expected = small_speednet()
    expected.whiten(Preprocess(20)(loader.split.images))
    train_step(state, *next(loader.batches(0)))
    stem = state.model.stem
    assert not stem.weight.requires_grad
    assert torch.equal(stem.weight, expected.stem.weight)
    assert stem.bias.any()


@pytest.mark.parametrize("in_channels", [8, 24])
def test_a_group_begins_by_passing_its_input_through(in_channels):
    group = PooledGroup(in_channels, 16, 12, (3, 1, 3))
    for convolution in (group.conv1, group.conv2, group.conv3):
        images = torch.randn(2, convolution.in_channels, 3, 3)
        outputs = convolution(images)
        shared = min(convolution.in_channels, convolution.out_channels)
        assert torch.allclose(outputs[:, :shared], images[:, :shared], atol=1e-5)
        assert not outputs[:, shared:].eq(0).any()


def test_a_filter_of_side_2_passes_one_corner_through():
    group = PooledGroup(8, 16, 16, (2, 3, 3))
    images = torch.randn(2, 8, 4, 4)
    assert torch.allclose(group.conv1(images)[:, :8], images[:, :, 1:, 1:], atol=1e-5)


def test_features_are_the_maximum_plus_the_mean_of_the_last_map():
    model, images = small_speednet().eval(), torch.randn(2, 3, 32, 32)
    last = model.stages(F.silu(model.stem(images))).flatten(2)
    assert last.shape == (2, model.head.in_features, 9)
    assert torch.allclose(model.forward_features(images), last.amax(2) + last.mean(2))
