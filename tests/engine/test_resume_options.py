"""A run of all that augments and regularises resumes to the bits of one that was not stopped."""

import dataclasses

import pytest
import torch

from resnet_cifar100.engine.checkpoint import load_newest_state
from resnet_cifar100.engine.trainer import fit
from tests.interruptions import StoppedError, fingerprint, stop_at


@pytest.fixture
def rich_config(tiny_config):
    """Three epochs of eight steps, of which the last is not augmented."""
    return dataclasses.replace(
        tiny_config,
        augment=("trivial_augment", "mixup", "cutmix"),
        plain_epochs=1,
        stochastic_depth=0.3,
        squeeze_excitation=True,
        sam_rho=0.5,
        sam_adaptive=True,
        ema_images=100,
    )


def test_a_run_of_every_option_killed_thrice_matches_an_uninterrupted_one(
    rich_config, tiny_dataset, tmp_path, console, monkeypatch, straight
):
    _, record, expected = straight(rich_config)
    assert record.status == "finished"
    config = dataclasses.replace(rich_config, checkpoint_minutes=0)
    for step in (3, 8, 21):  # augmented, a new epoch with statistics just measured, plain
        with monkeypatch.context() as patch:
            stop_at(patch, step)
            with pytest.raises(StoppedError):
                fit(config, tiny_dataset, tmp_path / "killed", console)
        assert load_newest_state(tmp_path / "killed")[0].step == step
        torch.manual_seed(999)
    again = fit(config, tiny_dataset, tmp_path / "killed", console)
    assert fingerprint(tmp_path / "killed") == expected
    assert again.result == record.result
