"""What TensorBoard is given."""

import dataclasses

import pytest

from resnet_cifar100.engine.trainer import fit


def test_tensorboard_gets_every_row(tiny_config, tiny_dataset, tmp_path, console):
    loading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    config = dataclasses.replace(tiny_config, tensorboard=True)
    record = fit(config, tiny_dataset, tmp_path / "run", console)
    events = loading.EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    values = [event.value for event in events.Scalars("test/top1")]
    assert values == pytest.approx([row["test/top1"] for row in record.history.epochs])


def test_tensorboard_keeps_the_epoch_that_a_run_goes_on_from(
    tiny_config, tiny_dataset, tmp_path, console
):
    loading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    short = dataclasses.replace(tiny_config, tensorboard=True, epochs=1, schedule="constant")
    fit(short, tiny_dataset, tmp_path / "run", console)
    longer = dataclasses.replace(short, epochs=2)
    record = fit(longer, tiny_dataset, tmp_path / "run", console)
    events = loading.EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    values = [event.value for event in events.Scalars("test/top1")]
    assert values == pytest.approx([row["test/top1"] for row in record.history.epochs])
