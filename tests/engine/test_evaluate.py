"""Test-time augmentation: the mean over an image and its mirror, and said wherever it is shown."""

import re

import numpy as np
import pytest
import torch

from resnet_cifar100.bundle import load_bundle, save_bundle
from resnet_cifar100.cli import main
from resnet_cifar100.engine.evaluate import with_mirror
from tests.bundles import untrained
from tests.reference import cross_entropy


def mirrored(images):
    """Turn each row of pixels round, one image at a time."""
    return torch.from_numpy(np.stack([image[:, :, ::-1] for image in images.numpy()]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_with_the_mirror_logits_are_the_mean_of_both_views(dtype):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (5, 3, 6, 8), generator=generator).to(torch.uint8)
    matrix = torch.randn(3 * 6 * 8, 10, generator=generator)

    def predict(images):
        assert images.dtype == torch.uint8
        return (images.flatten(1) / 255 @ matrix).to(dtype)

    expected = torch.stack([predict(images), predict(mirrored(images))]).float().mean(0)
    logits = with_mirror(predict)(images)
    assert logits.dtype == torch.float32
    assert torch.allclose(logits, expected, atol=1e-6)
    assert torch.allclose(with_mirror(predict)(mirrored(images)), expected, atol=1e-6)


@pytest.fixture
def network(tiny_config):
    """The file of an untrained network, as a run on drawn data would have left it."""
    save_bundle(untrained(tiny_config), tiny_config.checkpoint_path)
    return tiny_config.checkpoint_path


def test_the_command_measures_both_views_and_says_that_it_is_not_comparable(
    network, tiny_dataset, capsys
):
    images, labels = tiny_dataset.test
    logits = load_bundle(network).logits
    views = {(): logits(images), ("--tta",): (logits(images) + logits(mirrored(images))) / 2}
    losses = set()
    for flags, expected in views.items():
        assert main(["evaluate", "--checkpoint-path", str(network), *flags]) == 0
        shown = capsys.readouterr().out
        assert ("not to be compared" in shown) == bool(flags)
        (loss,) = re.findall(r"\d+\.\d{4}", shown)
        by_hand = cross_entropy(expected.numpy(), labels.numpy())
        assert float(loss) == pytest.approx(by_hand, abs=2e-4)
        losses.add(loss)
    assert len(losses) == 2
