"""Augmented batches are a function of seed, epoch, step and process, and of nothing else."""

import numpy as np
import pytest
import torch

from resnet_cifar100.config import Config
from resnet_cifar100.data.loader import Split, TrainLoader, plan_epoch
from tests.reference import crop_and_flip

CHANGES = ("color_jitter", "random_erasing", "trivial_augment")
MIXING = ("rand_augment", "mixup", "cutmix")
SETS = pytest.mark.parametrize("augment", [("cutout",), CHANGES, MIXING], ids=" ".join)


def noise_split(size=50):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (size, 3, 8, 8), generator=generator).to(torch.uint8)
    return Split(images, torch.arange(size))


def copies_split(size=48):
    """One picture and one label again and again: what differs in batches was drawn for them."""
    images, _ = noise_split(1)
    return Split(images.expand(size, 3, 8, 8).contiguous(), torch.zeros(size, dtype=torch.int64))


def loader(split, **changes):
    settings = {"batch_size": 12, "crop_padding": 2, "epochs": 5, "warmup_epochs": 0} | changes
    return TrainLoader(split, Config(**settings))


def uncropped(augment, **changes):
    settings = {"augment": augment, "crop_padding": 0, "flip": False} | changes
    return loader(copies_split(), **settings)


def are_equal(batches, others):
    return all(
        torch.equal(images, same) and torch.equal(targets, alike) and targets.dtype == alike.dtype
        for (images, targets), (same, alike) in zip(batches, others, strict=True)
    )


@SETS
def test_two_epochs_at_once_do_not_disturb_each_other(augment):
    train = loader(noise_split(), augment=augment)
    alone = [list(train.batches(epoch)) for epoch in (0, 1)]
    together = list(zip(train.batches(0), train.batches(1), strict=True))
    for batches, mingled in zip(alone, zip(*together, strict=True), strict=True):
        assert are_equal(batches, mingled)


@SETS
def test_training_on_augmented_batches_leaves_the_generator_of_all_alone(augment):
    before = torch.get_rng_state()
    list(loader(noise_split(), augment=augment).batches(0))
    assert torch.equal(torch.get_rng_state(), before)


@SETS
def test_every_seed_epoch_and_step_has_draws_of_its_own(augment):
    batches = [
        images
        for seed in (0, 1)
        for epoch in (0, 1)
        for images, _ in uncropped(augment, seed=seed).batches(epoch)
    ]
    assert len(batches) == 16
    assert len({images.numpy().tobytes() for images in batches}) == 16


@SETS
def test_two_processes_draw_apart(augment, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    batches = {}
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        batches[rank] = [images for images, _ in uncropped(augment).batches(1)]
        assert {len(images) for images in batches[rank]} == {6}
    assert not any(map(torch.equal, batches["0"], batches["1"]))


@pytest.mark.parametrize("plain_epochs", [0, 2, 5])
def test_the_last_epochs_are_not_augmented(plain_epochs):
    split = noise_split()
    plain = loader(split)
    train = loader(split, augment=("color_jitter", "mixup"), plain_epochs=plain_epochs)
    for epoch in range(5):
        for (images, targets), (bare, labels) in zip(
            train.batches(epoch), plain.batches(epoch), strict=True
        ):
            assert torch.equal(images, bare) == (epoch >= 5 - plain_epochs)
            assert targets.shape == (12, 100)
            assert targets.dtype == torch.float32
            if epoch >= 5 - plain_epochs:
                assert torch.equal(targets, torch.eye(100)[labels])


def test_mixed_targets_are_shares_of_the_labels_of_the_batch():
    split = noise_split()
    batches = loader(split, augment=MIXING).batches(0)
    for (images, targets), (_, labels) in zip(batches, loader(split).batches(0), strict=True):
        assert images.shape == (12, 3, 8, 8)
        assert images.dtype == torch.uint8
        assert targets.shape == (12, 100)
        assert torch.allclose(targets.sum(1), torch.ones(12))
        assert (targets >= 0).all()
        assert set(targets.nonzero()[:, 1].tolist()) <= set(labels.tolist())
        assert (targets[torch.arange(12), labels] > 0).all()


@pytest.mark.parametrize("augment", [(), CHANGES], ids=["none", "images"])
def test_without_mixing_targets_are_the_labels(augment):
    split = noise_split()
    order = plan_epoch(50, seed=0, epoch=1, padding=2, flip=True).order
    labels = torch.cat([labels for _, labels in loader(split, augment=augment).batches(1)])
    assert labels.dtype == torch.int64
    assert torch.equal(labels, split.labels[order[:48]])


def test_without_augmentation_batches_are_crops_and_mirrors_alone():
    split = noise_split()
    plan = plan_epoch(50, seed=0, epoch=3, padding=2, flip=True)
    images = torch.cat([images for images, _ in loader(split).batches(3)])
    assert len(images) == 48
    for image, index, (top, left), flip in zip(
        images, plan.order, plan.offsets.tolist(), plan.flips.tolist(), strict=False
    ):
        source = split.images[index].numpy()
        expected = crop_and_flip(source, top=top, left=left, flip=flip, padding=2)
        assert np.array_equal(image.numpy(), expected)


@SETS
@pytest.mark.parametrize("group_images", [1, 24, 36])
@pytest.mark.parametrize("first", [0, 1, 2, 3])
def test_images_augmented_together_are_the_same_wherever_an_epoch_begins(
    augment, group_images, first, monkeypatch
):
    monkeypatch.setattr("resnet_cifar100.data.loader.GROUP_IMAGES", group_images)
    split = noise_split()
    whole = list(loader(split, augment=augment).batches(2))
    assert len(whole) == 4
    assert are_equal(loader(split, augment=augment).batches(2, first), whole[first:])


@pytest.mark.parametrize("group_images", [1, 12, 36, 2048])
def test_crops_do_not_depend_on_how_many_are_cut_together(group_images, monkeypatch):
    split = noise_split()
    expected = list(loader(split).batches(1))
    monkeypatch.setattr("resnet_cifar100.data.loader.GROUP_IMAGES", group_images)
    assert are_equal(loader(split).batches(1), expected)


def test_an_image_is_augmented_otherwise_than_its_copy_in_the_same_group():
    train = uncropped(("trivial_augment",), batch_size=12)
    seen = torch.cat([images for images, _ in train.batches(0)])
    assert len({image.numpy().tobytes() for image in seen}) > 24
