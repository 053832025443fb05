"""Training time is that of the training steps, whatever stands between them."""

import dataclasses

from resnet_cifar100.engine import trainer
from resnet_cifar100.engine.trainer import fit


def test_the_clock_counts_training_steps_alone(
    tiny_config, tiny_dataset, tmp_path, console, monkeypatch
):
    now = [0.0]

    def taking(seconds, act):
        def timed(*given, **named):
            now[0] += seconds
            return act(*given, **named)

        return timed

    monkeypatch.setattr("resnet_cifar100.engine.runlog.time.perf_counter", lambda: now[0])
    costs = {"train_step": 1, "evaluate": 100, "save_state": 1000, "_save_best": 10_000}
    for name, seconds in costs.items():
        monkeypatch.setattr(trainer, name, taking(seconds, getattr(trainer, name)))
    config = dataclasses.replace(tiny_config, checkpoint_minutes=0)
    record = fit(config, tiny_dataset, tmp_path / "run", console)
    assert [row["train_seconds"] for row in record.history.epochs] == [8, 16, 24]
    assert {row["speed/images_per_s"] for row in record.history.epochs} == {50.0}
