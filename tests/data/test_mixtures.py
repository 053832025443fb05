import bisect
import itertools
import math
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from resnet_cifar100.data import augment
from tests import reference
from tests.data.batches import noise, plain, seeded

Mix = Callable[[Tensor, Tensor, Generator, float], tuple[Tensor, Tensor]]
CDF: dict[float, Callable[[float], float]] = {
    0.5: lambda x: 2 / math.pi * math.asin(math.sqrt(x)),
    1: lambda x: x,
    2: lambda x: 3 * x**2 - 2 * x**3,
}
sizes = pytest.mark.parametrize(("height", "width"), [(8, 8), (20, 32), (32, 32)])


def partners_of(targets: Tensor) -> Tensor:
    """Return who is mixed into each image, (N,), where its label is its index."""
    others = targets.clone().fill_diagonal_(0)
    return torch.where(others.sum(1) > 0, others.argmax(1), torch.arange(len(targets)))


def place_and_index(count: int, height: int, width: int) -> Tensor:
    """Return images (N,3,H,W) whose every pixel holds the image's index, its row and its column."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    index = torch.arange(count).view(-1, 1, 1).expand(count, height, width)
    return torch.stack([index, y.expand_as(index), x.expand_as(index)], 1).to(torch.uint8)


@sizes
@pytest.mark.parametrize("seed", range(4))
def test_mixup_blends_images_and_targets_in_one_share(seed: int, height: int, width: int) -> None:
    images = noise(12, height, width)
    mixed, targets = augment.mixup(images, torch.eye(12), seeded(seed), 1)
    others = partners_of(targets)
    assert sorted(others.tolist()) == list(range(12))
    (share,) = targets.diagonal()[others != torch.arange(12)].unique().double()
    expected = share * torch.eye(12) + (1 - share) * torch.eye(12)[others]
    assert torch.allclose(targets, expected.float(), rtol=0, atol=1e-7)
    exact = share * images.double() + (1 - share) * images[others].double()
    assert mixed.dtype == torch.uint8
    assert (mixed - exact).abs().max() <= 0.5001


@pytest.mark.parametrize("alpha", CDF)
def test_the_share_of_mixup_is_drawn_anew_for_each_batch(alpha: float) -> None:
    generator, shares = seeded(1), []
    while len(shares) < 400:
        _, targets = augment.mixup(plain(8, 0, 2, 2), torch.eye(8), generator, alpha)
        is_mixed = partners_of(targets) != torch.arange(8)
        if is_mixed.any():
            shares.append(float(targets.diagonal()[is_mixed][0]))
    assert reference.follows(shares, CDF[alpha])


@pytest.fixture
def draw_shares(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], list[float]]:
    """Return what draws 3000 shares, and fails if that takes many attempts."""
    attempts, rand = itertools.count(), torch.rand

    def counted(*args: Any, **options: Any) -> Tensor:
        assert next(attempts) < 60_000, "a share takes more than 20 attempts"
        return rand(*args, **options)

    def draw(alpha: float) -> list[float]:
        generator = seeded(2)
        return [augment.draw_beta(alpha, generator) for _ in range(3000)]

    monkeypatch.setattr(torch, "rand", counted)
    return draw


@pytest.mark.parametrize("alpha", [0.01, 0.1, 0.2, 0.5, 1, 2, 10])
def test_shares_have_the_mean_and_the_variance_of_beta(
    alpha: float, draw_shares: Callable[[float], list[float]]
) -> None:
    shares = torch.tensor(draw_shares(alpha), dtype=torch.float64)
    variance = 1 / (4 * (2 * alpha + 1))
    assert 0 <= shares.min() <= shares.max() <= 1
    assert abs(shares.mean() - 0.5) < 5 * (variance / 3000) ** 0.5
    assert abs(shares.var() / variance - 1) < 5 * (2 / 3000) ** 0.5


@pytest.mark.parametrize("alpha", CDF)
def test_shares_are_spread_as_beta(
    alpha: float, draw_shares: Callable[[float], list[float]]
) -> None:
    assert reference.follows(draw_shares(alpha), CDF[alpha])


@sizes
@pytest.mark.parametrize("seed", range(15))
def test_cutmix_pastes_one_box_and_counts_its_pixels(seed: int, height: int, width: int) -> None:
    images = place_and_index(9, height, width)
    mixed, targets = augment.cutmix(images, torch.eye(9), seeded(seed), 1)
    others = partners_of(targets)
    is_pasted = mixed[:, 0] != images[:, 0]
    expected = torch.where(is_pasted, others.view(-1, 1, 1), images[:, 0])
    assert torch.equal(mixed[:, 0].long(), expected)
    assert torch.equal(mixed[:, 1:], images[:, 1:])
    box, pasted = is_pasted.any(0), is_pasted.any(0).sum()
    assert pasted == box.any(0).sum() * box.any(1).sum()
    for index, other in enumerate(others.tolist()):
        if other != index:
            assert torch.equal(is_pasted[index], box)
    share = pasted / (height * width)
    soft = (1 - share) * torch.eye(9) + share * torch.eye(9)[others]
    assert torch.allclose(targets, soft, rtol=0, atol=2e-7)
    assert torch.allclose(targets.sum(1), torch.ones(9), rtol=0, atol=1e-6)


@pytest.mark.parametrize("side", [8, 32])
def test_the_target_of_cutmix_is_exact_where_a_float_can_be(side: int) -> None:
    images, generator = place_and_index(5, side, side), seeded(3)
    for _ in range(50):
        mixed, targets = augment.cutmix(images, torch.eye(5), generator, 1)
        left = (mixed[:, 0] == images[:, 0]).flatten(1).float().mean(1)
        assert torch.equal(targets.diagonal(), left)
        assert torch.equal(targets.sum(1), torch.ones(5))


@pytest.mark.parametrize("probability", [0, 0.3, 1])
def test_cutmix_is_for_as_many_batches_as_asked_for(probability: float) -> None:
    images, targets, generator = place_and_index(8, 32, 32), torch.eye(8), seeded(4)
    hits = 0
    for _ in range(800):
        mixed, soft = augment.cutmix(images, targets, generator, probability)
        assert torch.equal(mixed, images) == torch.equal(soft, targets)
        hits += not torch.equal(mixed, images)
    spread = 5 * (probability * (1 - probability) / 800) ** 0.5
    assert abs(hits / 800 - probability) <= spread + 0.01  # a box may be less than a pixel


def test_the_box_of_cutmix_is_a_uniform_share_until_it_is_cut_at_the_border() -> None:
    images, generator = plain(6, 0, 128, 128), seeded(5)
    batches = (augment.cutmix(images, torch.eye(6), generator, 1)[1] for _ in range(1500))
    pasted = [1 - float(targets.diagonal().min()) for targets in batches]
    draw = random.Random(6)
    expected = sorted(reference.cutmix_share(draw) for _ in range(50_000))
    assert reference.follows(pasted, lambda share: bisect.bisect(expected, share) / 50_000)


@pytest.mark.parametrize("mix", [augment.mixup, augment.cutmix])
def test_alone_in_its_batch_an_image_is_mixed_with_itself(mix: Mix) -> None:
    images, targets = noise(1), torch.eye(1)
    mixed, soft = mix(images, targets, seeded(7), 1)
    assert torch.equal(mixed, images)
    assert torch.equal(soft, targets)
