"""The average's norms get statistics of its own."""

import copy
import dataclasses
import signal

import pytest
import torch
from torch import nn

from resnet_cifar100.bundle import load_bundle
from resnet_cifar100.config import ModelConfig
from resnet_cifar100.engine import trainer
from resnet_cifar100.engine.checkpoint import load_newest_state
from resnet_cifar100.engine.ema import Ema
from resnet_cifar100.engine.stop import Stop
from resnet_cifar100.engine.trainer import fit, recalibrate_average
from resnet_cifar100.errors import InterruptedRunError
from resnet_cifar100.models.factory import create_model
from tests.interruptions import fingerprint
from tests.states import begun

MODELS = {
    "resnet8x4_s2": {"squeeze_excitation": True, "stochastic_depth": 0.5},
    "resnet20": {"stochastic_depth": 0.5},
    "speednet": {"width": 0.25},
}


def norms_of(model):
    return {name: m for name, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}


def statistics_by_hand(model, batches):
    """Return the mean over the batches of each norm's batch means and unbiased variances.

    Each batch is normalised by its own statistics, as in training; all else is as in evaluation.
    """
    model = copy.deepcopy(model).eval()
    seen = {name: [] for name in norms_of(model)}
    for name, norm in norms_of(model).items():
        norm.train()
        norm.register_forward_pre_hook(
            lambda _, inputs, name=name: seen[name].append(
                (inputs[0].mean(dim=(0, 2, 3)), inputs[0].var(dim=(0, 2, 3), correction=1))
            )
        )
    with torch.no_grad():
        for images in batches:
            model(images)
    count = len(batches)
    return {
        name: (sum(mean for mean, _ in each) / count, sum(var for _, var in each) / count)
        for name, each in seen.items()
    }


def assert_has_statistics(model, expected):
    for name, norm in norms_of(model).items():
        mean, variance = expected[name]
        assert torch.allclose(norm.running_mean, mean, rtol=1e-3, atol=1e-5), name
        assert torch.allclose(norm.running_var, variance, rtol=1e-3, atol=1e-5), name


@pytest.fixture(params=MODELS)
def average(request):
    """An average between two networks, of which neither has its statistics."""
    config = ModelConfig(name=request.param, dropout=0.5, **MODELS[request.param])
    torch.manual_seed(0)
    first, second = create_model(config), create_model(config)
    ema = Ema(first, 0.9)
    second.train()(torch.randn(8, 3, 16, 16))
    ema.update(second, step=5)
    return ema


def test_the_random_start_is_forgotten_long_before_the_final_decay_would():
    model = create_model(ModelConfig(name="speednet", width=0.25))
    ema = Ema(model, 0.999)
    for weight in model.parameters():
        weight.data.fill_(1)
    for step in range(24):
        ema.update(model, step)
    assert all(torch.allclose(w, torch.ones_like(w), atol=1e-5) for w in ema.model.parameters())


def draw_batches():
    torch.manual_seed(1)
    return [2 * torch.randn(count, 3, 16, 16) + 0.5 for count in (12, 12, 7)]


def test_norms_get_the_means_over_batches_of_what_they_see(average):
    batches = draw_batches()
    expected = statistics_by_hand(average.model, batches)
    average.recalibrate(iter(batches))
    assert_has_statistics(average.model, expected)


def test_what_was_measured_before_no_longer_counts(average):
    expected = statistics_by_hand(average.model, draw_batches())
    average.recalibrate([10 + torch.randn(9, 3, 16, 16)])
    average.recalibrate(draw_batches())
    assert_has_statistics(average.model, expected)


def test_measuring_leaves_weights_and_modes_as_they_were(average):
    before = {name: weight.clone() for name, weight in average.model.named_parameters()}
    average.recalibrate(draw_batches())
    for name, weight in average.model.named_parameters():
        assert torch.equal(weight, before[name]), name
        assert weight.grad is None
        assert not weight.requires_grad
    assert not any(module.training for module in average.model.modules())


def test_nothing_is_dropped_while_it_is_measured(average):
    batches = draw_batches()
    generator = torch.get_rng_state()
    average.recalibrate(batches)
    assert torch.equal(torch.get_rng_state(), generator)


def test_the_average_goes_on_from_the_new_statistics(average):
    model = copy.deepcopy(average.model)
    average.recalibrate(draw_batches())
    start = {name: norm.running_var.clone() for name, norm in norms_of(average.model).items()}
    average.update(model, step=10_000)  # at the full decay, 0.9
    for name, norm in norms_of(average.model).items():
        expected = 0.9 * start[name] + 0.1 * norms_of(model)[name].running_var
        assert torch.allclose(norm.running_var, expected, rtol=1e-5), name


def test_an_image_left_over_for_a_last_batch_is_no_fault(tiny_config, tiny_dataset, monkeypatch):
    """At this size of images the last norms see one pixel of it, which has no variance."""
    monkeypatch.setattr(trainer, "EVAL_BATCH_SIZE", 50)
    config = dataclasses.replace(tiny_config, ema_images=101)
    state, loader = begun(config, tiny_dataset)
    recalibrate_average(state, loader.split.images, Stop(0))
    for name, norm in norms_of(state.ema.model).items():
        assert torch.isfinite(norm.running_var).all(), name


def test_a_run_told_to_stop_while_it_measures_statistics_measures_them_again(
    tiny_config, tiny_dataset, tmp_path, console, monkeypatch, straight
):
    config = dataclasses.replace(tiny_config, epochs=2, ema_images=150)
    expected = straight(config).fingerprint
    complete = Ema.recalibrate

    def recalibrate(average, batches):
        complete(average, (signal.raise_signal(signal.SIGTERM) or batch for batch in batches))

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "EVAL_BATCH_SIZE", 50)
        patch.setattr(Ema, "recalibrate", recalibrate)
        with pytest.raises(InterruptedRunError, match=r"stopped at step 8 of .*, and saved"):
            fit(config, tiny_dataset, tmp_path / "stopped", console)
    fit(config, tiny_dataset, tmp_path / "stopped", console)
    assert fingerprint(tmp_path / "stopped") == expected


def test_the_result_of_a_run_is_the_average_with_statistics_of_its_own(
    tiny_config, tiny_dataset, straight
):
    folder, record, _ = straight(dataclasses.replace(tiny_config, epochs=2, ema_images=150))
    bundle = load_bundle(folder / "best_model.pth")
    images = bundle.preprocess(tiny_dataset.train.images[:150])
    assert_has_statistics(bundle.model, statistics_by_hand(bundle.model, [images]))
    saved, _ = load_newest_state(folder / "run")
    for name, tensor in bundle.model.state_dict().items():
        assert torch.equal(tensor, saved.tensors[f"ema.{name}"]), name
    assert record.result["test/top1"] == record.history.epochs[-1]["test/top1"]
    measured = record.history.epochs[-1]["test/loss"]
    assert record.result["test/loss"] == pytest.approx(measured, rel=1e-5)
