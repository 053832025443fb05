import dataclasses
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from resnet_cifar100 import storage
from resnet_cifar100.data.cifar100 import training_splits
from resnet_cifar100.data.loader import TrainLoader
from resnet_cifar100.engine import checkpoint
from resnet_cifar100.engine.checkpoint import load_newest_state, remove_leftovers, save_state
from resnet_cifar100.engine.state import TrainState, create_state
from resnet_cifar100.errors import CheckpointError, NonFiniteError
from resnet_cifar100.runtime import create_runtime


def state_at(step, config, dataset) -> TrainState:
    train, _ = training_splits(dataset, config)
    loader = TrainLoader(train, config)
    state = create_state(config, create_runtime(config), loader)
    state.step = step
    return state


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


@pytest.mark.parametrize("name", ["tensors.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "missing"])
def test_a_damaged_state_is_named_and_the_one_before_is_used(name, damage, run_dir):
    path = run_dir / "state" / "step_00000002" / name
    content = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    elif damage == "flip":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    else:
        path.write_bytes(content[: len(content) // 2] if damage == "cut" else b"")
    saved, faults = load_newest_state(run_dir)
    assert saved.step == 1
    assert "step_00000002" in faults[0]


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_no_flipped_bit_is_believed(data, flip_folder):
    folder, original = flip_folder
    name = data.draw(st.sampled_from(sorted(original)))
    content = bytearray(original[name])
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    (folder / name).write_bytes(content)
    try:
        saved = checkpoint._read_state(folder)
    except CheckpointError:
        return
    finally:
        (folder / name).write_bytes(original[name])
    # Only white space of the manifest may change unnoticed.
    assert name == "manifest.json"
    assert saved.step == 2


@pytest.fixture(scope="module")
def flip_folder(tmp_path_factory, tiny_data_dir):
    from resnet_cifar100.config import Config
    from resnet_cifar100.data.cifar100 import load_dataset

    config = Config(
        recipe="tiny",
        model="resnet8x4_s2",
        dataset="synthetic",
        data_dir=tiny_data_dir,
        device="cpu",
        precision="fp32",
    )
    folder = save_state(state_at(2, config, load_dataset(config)), tmp_path_factory.mktemp("flips"))
    return folder, {path.name: path.read_bytes() for path in folder.iterdir()}


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


def test_states_that_are_all_damaged_are_an_error_not_a_fresh_start(run_dir):
    for path in run_dir.rglob("manifest.json"):
        path.unlink()
    with pytest.raises(CheckpointError, match="step_00000001"):
        load_newest_state(run_dir)


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


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("count", range(1, 13))
def test_dying_at_any_file_operation_of_a_save_leaves_a_sound_state(
    count, after, run_dir, tiny_config, tiny_dataset, monkeypatch
):
    """The method of SQLite's ioerr tests: fail the Nth operation, for each N."""
    state = state_at(3, tiny_config, tiny_dataset)
    with monkeypatch.context() as patch:
        remaining = die_at(patch, count, after=after)
        try:
            save_state(state, run_dir)
        except DeathError:
            assert remaining() <= 0
    remove_leftovers(run_dir, state.config)
    saved, faults = load_newest_state(run_dir)
    assert saved.step in (2, 3)
    assert not faults
    assert not list(run_dir.rglob("*.tmp"))


class DeathError(BaseException):
    """Stands for a kill: no handler of the program may see it."""


def die_at(patch: pytest.MonkeyPatch, count: int, *, after: bool):
    left = [count]

    def mortal(function):
        def run(*args, **kwargs):
            left[0] -= 1
            if left[0] == 0 and not after:
                raise DeathError
            result = function(*args, **kwargs)
            if left[0] == 0 and after:
                getattr(result, "close", bool)()
                raise DeathError
            return result

        return run

    patch.setattr(Path, "mkdir", mortal(Path.mkdir))
    patch.setattr(Path, "open", mortal(Path.open))
    patch.setattr(Path, "rename", mortal(Path.rename))
    patch.setattr(os, "fsync", mortal(os.fsync))
    patch.setattr(shutil, "rmtree", mortal(shutil.rmtree))
    return lambda: left[0]


@pytest.mark.parametrize("operation", ["mkdir", "open", "rename"])
def test_a_full_disk_is_a_plain_error_and_nothing_is_lost(
    operation, run_dir, tiny_config, tiny_dataset, monkeypatch
):
    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    state = state_at(3, tiny_config, tiny_dataset)
    with monkeypatch.context() as patch:
        patch.setattr(Path, operation, full)
        with pytest.raises(CheckpointError, match="No space left"):
            save_state(state, run_dir)
    assert newest_step(run_dir) == 2
    assert not list((run_dir / "state").glob(".*"))


def test_every_file_is_synced_before_the_rename_and_the_folder_after(
    run_dir, tiny_config, tiny_dataset, monkeypatch
):
    events = []
    fsync, rename = os.fsync, Path.rename

    def noted_fsync(descriptor):
        events.append("sync " + Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        fsync(descriptor)

    def noted_rename(path, target):
        events.append("rename")
        return rename(path, target)

    state = state_at(3, tiny_config, tiny_dataset)
    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "rename", noted_rename)
    save_state(state, run_dir)
    before, after = events[: events.index("rename")], events[events.index("rename") + 1 :]
    assert before[:3] == ["sync tensors.safetensors", "sync state.json", "sync manifest.json"]
    assert before[3].endswith(".tmp")
    assert after == ["sync state"]


def test_states_of_another_network_are_refused(run_dir, tiny_config, tiny_dataset):
    saved, _ = load_newest_state(run_dir)
    other = state_at(0, dataclasses.replace(tiny_config, model="resnet20"), tiny_dataset)
    with pytest.raises(CheckpointError, match="another network"):
        saved.restore(other)
