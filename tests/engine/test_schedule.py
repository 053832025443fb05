import dataclasses
import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resnet_cifar100.config import Config
from resnet_cifar100.engine.schedule import image_size_at, lr_at, lr_scale_at

CONFIG = Config(lr=0.4, epochs=10, warmup_epochs=2)


def rates(config, steps_per_epoch=5):
    return [
        lr_at(step, config, steps_per_epoch=steps_per_epoch)
        for step in range(config.epochs * steps_per_epoch)
    ]


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_the_rate_rises_over_the_warmup_and_never_after(schedule):
    curve = rates(dataclasses.replace(CONFIG, schedule=schedule))
    assert 0 < curve[0] < curve[1]
    assert curve[:11] == sorted(curve[:11])
    assert curve[10] == max(curve) == 0.4
    assert curve[10:] == sorted(curve[10:], reverse=True)


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_the_rate_would_be_zero_one_step_after_the_last(schedule):
    config = dataclasses.replace(CONFIG, schedule=schedule)
    assert lr_at(50, config, steps_per_epoch=5) == pytest.approx(0, abs=1e-12)
    assert 0 < lr_at(49, config, steps_per_epoch=5) < 0.02


def test_the_cosine_agrees_with_torch_at_the_start_of_each_epoch():
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=100)
    reference = Config()
    for epoch in range(100):
        ours = lr_at(epoch * 390, reference, steps_per_epoch=390)
        assert ours == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-6)
        optimizer.step()
        scheduler.step()


def test_the_linear_schedule_is_a_straight_line():
    curve = rates(dataclasses.replace(CONFIG, schedule="linear", warmup_epochs=0))
    differences = [a - b for a, b in itertools.pairwise(curve)]
    assert all(math.isclose(d, 0.4 / 50, rel_tol=1e-9) for d in differences)


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(["cosine", "linear", "constant"]),
    st.integers(1, 20),
    st.floats(0, 1),
    st.integers(1, 400),
    st.floats(0, 1),
)
def test_the_share_of_the_peak_is_in_0_to_1(schedule, epochs, warmup, steps_per_epoch, place):
    config = Config(schedule=schedule, epochs=epochs, warmup_epochs=warmup * epochs, lr=7.0)
    step = round(place * (epochs * steps_per_epoch - 1))
    scale = lr_scale_at(step, config, steps_per_epoch=steps_per_epoch)
    assert 0 < scale <= 1
    assert lr_at(step, config, steps_per_epoch=steps_per_epoch) == 7 * scale


def test_images_grow_after_their_shares_of_the_steps():
    config = Config(epochs=10, early_sizes=(20, 24), early_shares=(0.15, 0.5))
    sizes = [image_size_at(step, config, steps_per_epoch=10) for step in range(100)]
    assert sizes == [20] * 15 + [24] * 35 + [32] * 50


def test_a_share_that_is_no_whole_number_of_steps_ends_after_the_step_it_is_in():
    config = Config(epochs=1, image_size=24, early_sizes=(16,), early_shares=(0.25,))
    assert [image_size_at(step, config, steps_per_epoch=3) for step in range(3)] == [16, 24, 24]


def test_without_early_sizes_images_have_one_size():
    config = Config(image_size=24)
    assert {image_size_at(step, config, steps_per_epoch=10) for step in range(1000)} == {24}
