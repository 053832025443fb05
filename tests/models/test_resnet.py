import dataclasses

import pytest
import torch

from resnet_cifar100.config import ModelConfig
from resnet_cifar100.errors import ConfigError
from resnet_cifar100.models.factory import MODELS, create_model
from resnet_cifar100.models.resnet import BasicBlockV2
from resnet_cifar100.models.summary import count_parameters, summarize

# From the papers or the document that this project grew from; ours differ where noted.
PARAMETERS = {
    "resnet44v2": 5_940_356,
    "resnet44v2_slim": 2_647_684,
    "resnet20": 278_324,
    "resnet110v2": 1_736_372,
    "resnet18": 11_220_132,
    "resnet34": 21_328_292,
    "wrn_16_4": 2_772_020,
    "wrn_28_10": 36_536_884,
}
HEAVY = {"wrn_28_10", "resnet34", "resnet110", "resnet110v2"}
LIGHT = [name for name in MODELS if name not in HEAVY]


@pytest.mark.parametrize(("name", "count"), PARAMETERS.items())
def test_parameter_counts(name, count):
    assert count_parameters(create_model(ModelConfig(name=name))) == count


def test_resnet44v2_has_the_documented_stages():
    parts = {part.name: part for part in summarize(ModelConfig(name="resnet44v2")).parts}
    assert parts["stem"].shape == (32, 32, 32)
    for stage, blocks, width, side in [
        (1, 7, 32, 32),
        (2, 7, 64, 16),
        (3, 7, 128, 8),
        (4, 3, 256, 4),
    ]:
        part = parts[f"stage {stage}"]
        assert part.layers == f"{blocks} x BasicBlockV2"
        assert part.shape == (width, side, side)
    assert parts["head"].shape == (100,)


def test_multiply_adds_agree_with_a_count_by_hand():
    # resnet20: the stem, then six convolutions a stage, with the projections and the head.
    by_hand = 27 * 16 * 32**2 + 6 * 144 * 16 * 32**2
    by_hand += 144 * 32 * 16**2 + 5 * 288 * 32 * 16**2 + 16 * 32 * 16**2
    by_hand += 288 * 64 * 8**2 + 5 * 576 * 64 * 8**2 + 32 * 64 * 8**2 + 64 * 100
    assert summarize(ModelConfig(name="resnet20")).multiply_adds == by_hand


@pytest.mark.parametrize("name", LIGHT)
def test_gradients_reach_every_parameter(name):
    model = create_model(ModelConfig(name=name, dropout=0.0))
    logits = model(torch.randn(2, 3, 16, 16))
    assert logits.shape == (2, 100)
    logits.square().sum().backward()
    trained = [p for p in model.parameters() if p.requires_grad]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in trained)


@pytest.mark.parametrize("size", [8, 17, 32])
def test_any_image_size_works(size):
    assert create_model(ModelConfig())(torch.randn(1, 3, size, size).repeat(2, 1, 1, 1)).shape == (
        2,
        100,
    )


def test_evaluation_is_deterministic_and_training_drops_features():
    model = create_model(ModelConfig(name="resnet20", dropout=0.5))
    images = torch.randn(4, 3, 16, 16)
    assert not torch.equal(model(images), model(images))
    model.eval()
    assert torch.equal(model(images), model(images))


def test_a_v2_projection_takes_the_activated_tensor():
    block = BasicBlockV2(4, 8, stride=2).eval()
    with torch.no_grad():
        block.conv2.weight.zero_()
    images = -torch.ones(1, 4, 6, 6)  # all negative: nothing passes the first ReLU
    assert torch.equal(block(images), torch.zeros(1, 8, 3, 3))


def test_a_v2_network_activates_before_pooling():
    model = create_model(ModelConfig(name="resnet44v2")).eval()
    assert (model.forward_features(torch.randn(2, 3, 32, 32)) >= 0).all()


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match="resnet44v2"):
        create_model(ModelConfig(name="resnet9000"))


@pytest.mark.parametrize("name", ["resnet18", "resnet44v2"])
def test_the_number_of_classes_is_a_setting(name):
    config = dataclasses.replace(ModelConfig(name=name), num_classes=7)
    assert create_model(config)(torch.randn(2, 3, 8, 8)).shape == (2, 7)
