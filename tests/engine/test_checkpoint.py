import dataclasses
import json
from pathlib import Path

import pytest
import torch

from resnet_cifar100 import storage
from resnet_cifar100.engine.checkpoint import load_newest_state, save_state
from resnet_cifar100.errors import CheckpointError, NonFiniteError
from tests.states import state_at


@pytest.fixture
def run_dir(tiny_config, tiny_dataset, tmp_path) -> Path:
    """A run with sound states at steps 1 and 2."""
    for step in (1, 2):
        save_state(state_at(step, tiny_config, tiny_dataset), tmp_path / "run")
    return tmp_path / "run"


def newest_step(run_dir: Path) -> int:
    saved, _ = load_newest_state(run_dir)
    return saved.step


def test_only_the_newest_states_are_kept(tiny_config, tiny_dataset, tmp_path):
    for step in range(5):
        save_state(state_at(step, tiny_config, tiny_dataset), tmp_path)
    names = sorted(path.name for path in (tmp_path / "state").iterdir())
    assert names == ["step_00000003", "step_00000004"]


def test_a_state_is_plain_tensors_and_json_with_checksums(run_dir):
    folder = run_dir / "state" / "step_00000002"
    assert sorted(p.name for p in folder.iterdir()) == [
        "manifest.json",
        "state.json",
        "tensors.safetensors",
    ]
    manifest = json.loads((folder / "manifest.json").read_text())
    for name in ("state.json", "tensors.safetensors"):
        assert manifest["files"][name]["sha256"] == storage.sha256_of((folder / name).read_bytes())


def test_a_run_without_states_has_none(tmp_path):
    assert load_newest_state(tmp_path) == (None, [])


def test_a_damaged_state_does_not_push_a_sound_one_out(run_dir, tiny_config, tiny_dataset):
    """The run resumed from step 1, because step 2 is damaged, and saves again before step 2."""
    (run_dir / "state" / "step_00000002" / "state.json").unlink()
    config = dataclasses.replace(tiny_config, keep_checkpoints=1)
    state = state_at(1, config, tiny_dataset)
    save_state(state, run_dir)
    assert newest_step(run_dir) == 1
    assert not (run_dir / "state" / "step_00000002").exists()


def test_reading_a_state_touches_nothing(run_dir):
    half_written = run_dir / "state" / ".step_00000003.1.tmp"
    half_written.mkdir()
    load_newest_state(run_dir)
    assert half_written.exists()


def test_a_state_of_another_format_is_refused(run_dir):
    for path in run_dir.rglob("manifest.json"):
        path.write_text(path.read_text().replace('"format": 2', '"format": 99'))
    with pytest.raises(CheckpointError, match="format 99"):
        load_newest_state(run_dir)


def test_weights_that_are_not_finite_are_never_saved(run_dir, tiny_config, tiny_dataset):
    state = state_at(3, tiny_config, tiny_dataset)
    with torch.no_grad():
        state.model.head.bias[0] = float("nan")
    with pytest.raises(NonFiniteError, match="step 3"):
        save_state(state, run_dir)
    assert newest_step(run_dir) == 2


def test_states_of_another_network_are_refused(run_dir, tiny_config, tiny_dataset):
    saved, _ = load_newest_state(run_dir)
    other = state_at(0, dataclasses.replace(tiny_config, model="resnet20"), tiny_dataset)
    with pytest.raises(CheckpointError, match="another network"):
        saved.restore(other)
