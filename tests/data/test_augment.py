import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from resnet_cifar100.data.augment import AUGMENTATIONS, MIXTURES, Augment, seeded_generator
from resnet_cifar100.errors import ConfigError
from tests.data.batches import noise, plain, seeded

CHANGES = ["cutout", "random_erasing", "rotation", "color_jitter", "trivial_augment"]
CHANGES += ["rand_augment"]
KINDS = [*CHANGES, "mixup", "cutmix"]
ALL = {**AUGMENTATIONS, **MIXTURES}
every_kind = pytest.mark.parametrize("kind", KINDS)


def outcome(
    *names: str, images: Tensor, labels: Tensor | None = None, seed: int = 7
) -> tuple[Tensor, Tensor]:
    labels = torch.arange(len(images)) if labels is None else labels
    augment, draws = Augment(names), seeded(seed)
    return augment.mix(augment.change(images, draws), labels, draws)


def strong(kind: str) -> str:
    return f"{kind}:1" if kind in {"cutmix", "random_erasing"} else kind


def same(first: tuple[Tensor, ...], second: tuple[Tensor, ...]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_these_are_the_augmentations() -> None:
    assert sorted(ALL) == sorted(KINDS)


@every_kind
def test_the_same_generator_gives_the_same_bits_and_another_gives_others(kind: str) -> None:
    images = noise(16)
    first = outcome(strong(kind), images=images)
    assert first[0].dtype == torch.uint8
    assert first[0].shape == images.shape
    assert same(first, outcome(strong(kind), images=images))
    assert not torch.equal(first[0], outcome(strong(kind), images=images, seed=8)[0])


@every_kind
def test_the_generator_of_the_process_is_neither_read_nor_moved(kind: str) -> None:
    images = noise(16)
    first = outcome(strong(kind), images=images)
    with torch.random.fork_rng():
        torch.manual_seed(123)
        state = torch.get_rng_state()
        assert same(first, outcome(strong(kind), images=images))
        assert torch.equal(torch.get_rng_state(), state)


@every_kind
def test_the_batch_that_is_given_stays_as_it_was(kind: str) -> None:
    images, targets = noise(16), torch.eye(16)
    given = images.clone(), targets.clone()
    if kind in MIXTURES:
        MIXTURES[kind].apply(images, targets, seeded(1), 1)
    else:
        AUGMENTATIONS[kind].apply(images, seeded(1), 1)
    assert same((images, targets), given)


@every_kind
def test_the_order_in_memory_does_not_matter(kind: str) -> None:
    images = noise(16, 20, 32)
    reordered = images.to(memory_format=torch.channels_last)
    assert same(outcome(strong(kind), images=reordered), outcome(strong(kind), images=images))


@every_kind
def test_a_small_batch_of_one_is_a_batch(kind: str) -> None:
    assert outcome(strong(kind), images=noise(1, 8, 8))[0].shape == (1, 3, 8, 8)


@pytest.mark.parametrize("names", [("cutout:9", "rotation:90"), ("rotation:90", "cutout:9")])
def test_augmentations_are_applied_in_the_order_of_their_names(names: tuple[str, str]) -> None:
    images, generator = noise(16), seeded(7)
    expected = images
    for name in names:
        expected = Augment([name]).change(expected, generator)
    assert torch.equal(outcome(*names, images=images)[0], expected)
    assert not torch.equal(outcome(*reversed(names), images=images)[0], expected)


def test_a_mixture_comes_after_the_changes_of_single_images() -> None:
    images = plain(16, 200)
    first, _ = outcome("mixup", "color_jitter:1", images=images)
    second, _ = outcome("color_jitter:1", "mixup", images=images)
    assert torch.equal(first, second)


def test_nothing_named_is_nothing_done() -> None:
    images, labels = noise(4), torch.tensor([5, 99, 0, 7])
    assert same(outcome(images=images, labels=labels), (images, labels))
    assert not Augment([]).mixtures


@pytest.mark.parametrize("side", [1, 6, 17])
def test_a_number_after_the_name_is_the_strength(side: int) -> None:
    images = plain(300, 255)
    blank = (outcome(f"cutout:{side}", images=images)[0] != 255).all(1).sum((1, 2))
    assert blank.max() == side**2


@every_kind
def test_a_name_alone_is_its_usual_strength(kind: str) -> None:
    images = noise(16)
    named = f"{kind}:{ALL[kind].strength}"
    assert same(outcome(kind, images=images), outcome(named, images=images))
    assert ALL[kind].least <= ALL[kind].strength <= ALL[kind].most


@every_kind
def test_the_ends_of_a_range_are_in_it_and_what_is_beyond_is_not(kind: str) -> None:
    least, most = ALL[kind].least, ALL[kind].most
    for number in (least, most):
        Augment([f"{kind}:{number}"])
    for number in (least - 0.001, most + 0.001, -most, float("nan"), float("inf")):
        with pytest.raises(ConfigError) as error:
            Augment([f"{kind}:{number}"])
        assert f"{kind}:NUMBER" in str(error.value)
        assert f"{least:g} to {most:g}" in str(error.value)


@every_kind
@pytest.mark.parametrize("number", ["", " ", "big", "1:2", "1,2", "0x4"])
def test_what_is_no_number_is_no_strength(kind: str, number: str) -> None:
    with pytest.raises(ConfigError, match=f"{kind}:NUMBER") as error:
        Augment([f"{kind}:{number}"])
    assert str(error.value).endswith(f"got {f'{kind}:{number}'!r}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["", ":", ":4", "Cutout", "mixup ", "mix-up", "cutout=4", "all"])
def test_an_unknown_name_is_told_the_known_ones(name: str) -> None:
    with pytest.raises(ConfigError) as error:
        Augment(["rotation", name])
    assert all(kind in str(error.value) for kind in KINDS)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", CHANGES)
def test_without_a_mixture_targets_stay_labels(kind: str) -> None:
    labels = torch.tensor([5, 99, 0, 7])
    _, targets = outcome(kind, images=noise(4), labels=labels)
    assert not Augment([kind]).mixtures
    assert targets.dtype == torch.int64
    assert torch.equal(targets, labels)


@pytest.mark.parametrize("names", [("mixup",), ("cutmix:1",), ("cutout", "cutmix", "mixup")])
def test_with_a_mixture_targets_are_shares_of_the_classes(names: tuple[str, ...]) -> None:
    images, labels = noise(32), torch.arange(32) * 3
    assert Augment(names).mixtures
    for seed in range(8):
        _, targets = outcome(*names, images=images, labels=labels, seed=seed)
        assert targets.shape == (32, 100)
        assert targets.is_floating_point()
        assert targets.min() >= 0
        assert torch.allclose(targets.sum(1), torch.ones(32), rtol=0, atol=1e-6)
        assert targets[:, labels].sum() == pytest.approx(32, abs=1e-4)


def test_without_a_generator_nothing_is_mixed() -> None:
    images, labels = noise(8), torch.tensor([0, 99, 5, 5, 42, 1, 2, 3])
    assert same(Augment(CHANGES).mix(images, labels, None), (images, labels))
    plainly, targets = Augment(KINDS).mix(images, labels, None)
    assert torch.equal(plainly, images)
    assert targets.is_floating_point()
    assert torch.equal(targets, F.one_hot(labels, 100).float())


def test_of_two_mixtures_each_batch_takes_one() -> None:
    black_and_white = torch.tensor([0, 255] * 8, dtype=torch.uint8).view(-1, 1, 1, 1)
    images = black_and_white.repeat(1, 3, 32, 32)
    blended, cut = 0, 0
    for seed in range(200):
        mixed = outcome("mixup", "cutmix:1", images=images, seed=seed)[0].flatten(1)
        is_blended = bool(((mixed != 0) & (mixed != 255)).any())
        is_cut = bool((mixed.amax(1) != mixed.amin(1)).any())
        assert not (is_blended and is_cut)
        blended += is_blended
        cut += is_cut
    assert 65 < blended < 135
    assert 65 < cut < 135


def drawn(*numbers: int) -> tuple[int, ...]:
    return tuple(torch.randint(2**62, (2,), generator=seeded_generator(*numbers)).tolist())


def test_the_generator_of_a_step_depends_on_each_number() -> None:
    first = drawn(3, 14, 15, 9)
    assert drawn(3, 14, 15, 9) == first
    for other in ((4, 14, 15, 9), (3, 15, 15, 9), (3, 14, 16, 9), (3, 14, 15, 10), (3, 15, 14, 9)):
        assert drawn(*other) != first


def test_no_two_steps_draw_the_same() -> None:
    seeds, epochs, steps, ranks = (0, 1, 2**31, 2**32 - 1), range(8), range(40), range(4)
    every = list(itertools.product(seeds, epochs, steps, ranks))
    assert len({drawn(*numbers) for numbers in every}) == len(every) == 5120
