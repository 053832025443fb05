"""Every tensor that is saved is needed: without any one, a resumed run ends with other bits."""

import random
import shutil

import pytest

from resnet_cifar100.engine.checkpoint import load_newest_state
from resnet_cifar100.engine.state import TrainState
from resnet_cifar100.engine.trainer import fit
from tests.faults.training import settings
from tests.interruptions import StoppedError, fingerprint, stop_at, within


def test_without_any_one_of_its_keys_a_state_leads_elsewhere(
    tiny_data_dir, tiny_dataset, tmp_path, console, monkeypatch, full, figure
):
    config = within(settings(tiny_data_dir, ema_images=0), tmp_path)  # else measured anew
    with monkeypatch.context() as patch:
        stop_at(patch, 13)
        with pytest.raises(StoppedError):
            fit(config, tiny_dataset, tmp_path / "saved", console)
    complete, dropped = TrainState.load_tensors, ""

    def load_all_but_one(state, tensors):
        fresh = state.tensors()
        other = fresh.get(dropped, tensors.get(dropped, 0) * 0)  # a fresh optimizer has no memory
        complete(state, tensors | {dropped: other} if dropped else tensors)

    def end() -> str:
        shutil.copytree(tmp_path / "saved", tmp_path / "resumed")
        fit(config, tiny_dataset, tmp_path / "resumed", console)
        found = fingerprint(tmp_path / "resumed")
        shutil.rmtree(tmp_path / "resumed")
        return found

    monkeypatch.setattr(TrainState, "load_tensors", load_all_but_one)
    whole = end()
    assert end() == whole
    saved, _ = load_newest_state(tmp_path / "saved")
    counters = {key for key in saved.tensors if "ema" in key and "batches_tracked" in key}
    keys = sorted({*saved.tensors} - counters)  # nothing reads or changes those of the average
    tried = keys if full else random.Random(0).sample(keys, 3)
    for dropped in tried:
        assert end() != whole, f"{dropped} is not needed"
    figure("resumed without one saved tensor", f"noticed for {len(tried)} of {len(tried)} tensors")
