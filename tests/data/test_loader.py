import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from resnet_cifar100.config import Config
from resnet_cifar100.data.loader import Split, TrainLoader, plan_epoch


def numbered_split(size):
    """Images whose pixels all hold their own index, so that they can be told apart after a crop."""
    index = torch.arange(size)
    images = index.to(torch.uint8)[:, None, None, None].expand(size, 3, 4, 4).contiguous()
    return Split(images, index)


def loader(size=50, batch_size=8, **changes):
    settings = {"batch_size": batch_size, "crop_padding": 0, "flip": False} | changes
    return TrainLoader(numbered_split(size), Config(**settings))


def labels_of(loader, epoch, first_step=0):
    return torch.cat([labels for _, labels in loader.batches(epoch, first_step)]).tolist()


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 200), st.integers(2, 64), st.integers(0, 5), st.integers(0, 2**32 - 1))
def test_an_epoch_takes_each_image_at_most_once_in_whole_batches(size, batch_size, epoch, seed):
    train = loader(size, batch_size, seed=seed)
    labels = labels_of(train, epoch)
    assert len(labels) == len(set(labels)) == len(train) * train.batch_size
    assert size - len(labels) < train.batch_size


@settings(max_examples=100, deadline=None)
@given(st.integers(8, 120), st.integers(2, 8), st.integers(0, 3), st.data())
def test_an_epoch_begun_in_the_middle_continues_the_same_images(size, batch_size, epoch, data):
    train = loader(size, batch_size, crop_padding=1, flip=True)
    first = data.draw(st.integers(0, len(train)))
    whole = list(train.batches(epoch))
    rest = list(train.batches(epoch, first))
    assert len(rest) == len(whole) - first
    for (images, labels), (again, same) in zip(whole[first:], rest, strict=True):
        assert torch.equal(images, again)
        assert torch.equal(labels, same)


def test_images_keep_their_labels():
    for images, labels in loader(batch_size=7).batches(epoch=3):
        assert torch.equal(images[:, 0, 0, 0].long(), labels)


def test_the_order_depends_on_seed_and_epoch_alone():
    assert labels_of(loader(), 0) == labels_of(loader(), 0)
    assert labels_of(loader(), 0) != labels_of(loader(), 1)
    assert labels_of(loader(), 0) != labels_of(loader(seed=1), 0)


def test_no_two_seeds_share_an_epoch():
    plans = {
        tuple(plan_epoch(20, seed=s, epoch=e, padding=4, flip=True).order.tolist())
        for s in range(20)
        for e in range(20)
    }
    assert len(plans) == 400


def test_seeds_of_any_size_differ():
    seeds = [*range(3), 2**12, 2**12 + 1, 2**31, 2**32 - 1]
    orders = [alternating(0, seed=seed).order.tolist() for seed in seeds]
    flips = [flips_by_image(alternating(0, seed=seed)).tolist() for seed in seeds]
    for drawn in (orders, flips):
        assert len({tuple(one) for one in drawn}) == len(seeds)


def test_offsets_are_uniform_and_half_the_images_are_flipped():
    plan = plan_epoch(100_000, seed=0, epoch=0, padding=4, flip=True)
    counts = torch.bincount(plan.offsets.flatten(), minlength=9)
    assert len(counts) == 9
    assert (counts - 200_000 / 9).abs().max() < 5 * (200_000 / 9) ** 0.5
    assert abs(plan.flips.float().mean() - 0.5) < 0.01
    assert not plan_epoch(1000, seed=0, epoch=0, padding=4, flip=False).flips.any()


def test_a_batch_larger_than_the_split_is_the_split():
    assert len(loader(size=5, batch_size=128)) == 1


def alternating(epoch, *, seed=0, size=1000):
    return plan_epoch(size, seed=seed, epoch=epoch, padding=4, flip=True, alternating_flip=True)


def flips_by_image(plan):
    return torch.empty_like(plan.flips).index_put_((plan.order,), plan.flips)


@given(st.integers(1, 300), st.integers(0, 50), st.integers(0, 2**32 - 1))
@settings(max_examples=100, deadline=None)
def test_alternating_flip_mirrors_each_image_in_one_of_two_epochs(size, pair, seed):
    even, odd, next_even = (
        flips_by_image(alternating(2 * pair + epoch, seed=seed, size=size)) for epoch in range(3)
    )
    assert torch.equal(even, ~odd)
    assert torch.equal(even, next_even)


def test_alternating_flip_mirrors_a_half_that_depends_on_the_seed():
    flips = flips_by_image(alternating(0, size=100_000))
    assert abs(flips.float().mean() - 0.5) < 0.01
    other = flips_by_image(alternating(0, seed=1, size=100_000))
    assert abs((flips == other).float().mean() - 0.5) < 0.01


@pytest.mark.parametrize("epoch", [0, 1, 7])
def test_alternating_flip_leaves_order_and_crops_as_they_were(epoch):
    plain = plan_epoch(1000, seed=3, epoch=epoch, padding=4, flip=True)
    plan = alternating(epoch, seed=3)
    assert torch.equal(plan.order, plain.order)
    assert torch.equal(plan.offsets, plain.offsets)
    assert not torch.equal(plan.flips, plain.flips)


def test_without_flip_nothing_alternates():
    for epoch in range(2):
        plan = plan_epoch(50, seed=0, epoch=epoch, padding=4, flip=False, alternating_flip=True)
        assert not plan.flips.any()


def test_two_alternating_epochs_show_both_views_of_every_image():
    images = torch.arange(4, dtype=torch.uint8).expand(50, 3, 4, 4).contiguous()
    config = Config(batch_size=10, crop_padding=0, alternating_flip=True)
    train = TrainLoader(Split(images, torch.arange(50)), config)
    seen = set()
    for epoch in range(2):
        for batch, labels in train.batches(epoch):
            seen |= set(zip(labels.tolist(), batch[:, 0, 0, 0].tolist(), strict=True))
    assert seen == {(label, corner) for label in range(50) for corner in (0, 3)}


@pytest.mark.parametrize(("fill", "darkest"), [("zeros", 0), ("reflect", 255)])
def test_the_padding_is_made_of_what_was_asked_for(fill, darkest):
    white = torch.full((50, 3, 4, 4), 255, dtype=torch.uint8)
    config = Config(batch_size=50, crop_padding=2, crop_fill=fill)
    ((images, _),) = TrainLoader(Split(white, torch.arange(50)), config).batches(0)
    assert images.min() == darkest
