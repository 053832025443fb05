import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from resnet_cifar100.data.loader import Split, TrainLoader, plan_epoch


def numbered_split(size):
    """Images whose pixels all hold their own index, so that they can be told apart after a crop."""
    index = torch.arange(size)
    images = index.to(torch.uint8)[:, None, None, None].expand(size, 3, 4, 4).contiguous()
    return Split(images, index)


def loader(size=50, batch_size=8, **changes):
    settings = {"seed": 0, "padding": 0, "flip": False} | changes
    return TrainLoader(numbered_split(size), batch_size=batch_size, **settings)


def labels_of(loader, epoch, first_step=0):
    return torch.cat([labels for _, labels in loader.batches(epoch, first_step)]).tolist()


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 200), st.integers(1, 64), st.integers(0, 5), st.integers(0, 2**32 - 1))
def test_an_epoch_takes_each_image_at_most_once_in_whole_batches(size, batch_size, epoch, seed):
    train = loader(size, batch_size, seed=seed)
    labels = labels_of(train, epoch)
    assert len(labels) == len(set(labels)) == len(train) * train.batch_size
    assert size - len(labels) < train.batch_size


@settings(max_examples=100, deadline=None)
@given(st.integers(8, 120), st.integers(1, 8), st.integers(0, 3), st.data())
def test_an_epoch_begun_in_the_middle_continues_the_same_images(size, batch_size, epoch, data):
    train = loader(size, batch_size, padding=1, flip=True)
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


def test_offsets_are_uniform_and_half_the_images_are_flipped():
    plan = plan_epoch(100_000, seed=0, epoch=0, padding=4, flip=True)
    counts = torch.bincount(plan.offsets.flatten(), minlength=9)
    assert len(counts) == 9
    assert (counts - 200_000 / 9).abs().max() < 5 * (200_000 / 9) ** 0.5
    assert abs(plan.flips.float().mean() - 0.5) < 0.01
    assert not plan_epoch(1000, seed=0, epoch=0, padding=4, flip=False).flips.any()


def test_a_batch_larger_than_the_split_is_the_split():
    assert len(loader(size=5, batch_size=128)) == 1
