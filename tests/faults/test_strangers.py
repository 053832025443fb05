"""Checkpoints from strangers: refused with one sentence, in little memory, with nothing run."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch

from resnet_cifar100.bundle import load_bundle, save_bundle
from resnet_cifar100.engine.checkpoint import _facts, load_newest_state, save_state
from tests.faults.hostile import bombs, layouts, lies, pickles

pytest.importorskip("resource", reason="needs a POSIX system")
from tests.faults.child import Outcome, in_child, in_words

MOST_MEGABYTES = 200


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """A file that appears if the code in a hostile file is run."""
    return tmp_path / "canary"


@pytest.fixture
def refuse(tmp_path, canary) -> Callable[..., Outcome]:
    """Return a check that an act ends in one sentence and leaves no trace."""

    def check(act: Callable[[], object], named: Path, case: str) -> Outcome:
        before = sorted(tmp_path.rglob("*"))
        outcome = in_child(act)
        assert outcome.fault == "CheckpointError", f"{case}: {outcome}"
        assert str(named) in outcome.message
        assert "\n" not in outcome.message
        assert outcome.megabytes < MOST_MEGABYTES, case
        assert not canary.exists(), case
        assert sorted(tmp_path.rglob("*")) == before
        return outcome

    return check


def test_no_file_of_a_stranger_harms_who_loads_it(
    make_bundle, tmp_path, canary, refuse, full, figure
):
    files = {f"{name}.pth": content for name, content in (pickles(canary) | bombs()).items()}
    files |= {f"{name}.safetensors": content for name, content in layouts().items()}
    files |= lies(make_bundle(), suffixes=(".pth", ".safetensors") if full else (".pth",))
    outcomes = []
    for name, content in files.items():
        path = tmp_path / f"best_model{Path(name).suffix}"
        path.write_bytes(content)
        outcomes.append(refuse(lambda path=path: load_bundle(path), named=path, case=name))
        path.unlink()
    figure("hostile .pth and .safetensors", in_words(outcomes))


def test_a_file_of_this_project_is_not_refused(make_bundle, tmp_path):
    save_bundle(make_bundle(), tmp_path / "best_model.pth")
    assert in_child(lambda: load_bundle(tmp_path / "best_model.pth")).fault == ""


@pytest.fixture
def folder(make_state, tmp_path) -> Path:
    """The only state of a run."""
    return save_state(make_state(2), tmp_path / "run")


def forge(folder: Path, name: str, content: bytes) -> None:
    """Replace a file of a state and the facts about it in the manifest."""
    (folder / name).write_bytes(content)
    if name == "manifest.json":
        return
    manifest = json.loads((folder / "manifest.json").read_bytes())
    manifest["files"][name] = _facts(content)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def forged_states(folder: Path) -> dict[str, bytes]:
    """Return contents of state.json that no run would have written."""
    sound = json.loads((folder / "state.json").read_bytes())
    row = sound["history"]["steps"][0]
    history = {
        "a number for a history": 7,
        "numbers for rows": {**sound["history"], "epochs": [1, 2]},
        "a history too much": {**sound["history"], "code": row},
    }
    settings = {"width": 1e9, "image_size": -1, "epochs": "many", "data_dir": 7, "code": "x"}
    changes = [{"step": -1}, {"step": "x"}, {"step": 1e400}, {"config": 7}]
    changes += [{"history": value} for value in history.values()]
    changes += [{"config": {**sound["config"], name: value}} for name, value in settings.items()]
    files = {str(change)[:60]: json.dumps({**sound, **change}).encode() for change in changes}
    return files | {"a nest": b"[" * 100_000, "a list": b"[1]", "no text": b"\xff\xfe"}


def forged_tensors(folder: Path) -> dict[str, bytes]:
    """Return contents of tensors.safetensors that the run may not go on with."""
    sound = safetensors.torch.load((folder / "tensors.safetensors").read_bytes())
    bias = sound["model.head.bias"]
    changes = {
        "NaN": {"model.head.bias": bias * float("nan")},
        "an infinite average": {"ema.head.bias": bias * float("inf")},
        "another shape": {"model.head.bias": bias[1:].clone()},
        "a name too many": {"model.more": bias.clone()},
        "losses of no name": {"losses.__class__": bias.clone()},
        "no weights": {name: None for name in sound if name.startswith("model.")},
        "momentum of another shape": {"optimizer.0.momentum_buffer": torch.zeros(7)},
    }
    files = {}
    for name, change in changes.items():
        kept = {key: tensor for key, tensor in (sound | change).items() if tensor is not None}
        files[name] = safetensors.torch.save(kept)
    return files


def test_no_state_of_a_stranger_harms_who_resumes_it(make_state, folder, canary, refuse, figure):
    state = make_state(0)

    def resume() -> None:
        load_newest_state(folder.parents[1])[0].restore(state)

    tensors = layouts() | pickles(canary) | forged_tensors(folder)
    cases = {f"tensors.safetensors: {name}": content for name, content in tensors.items()}
    states = pickles(canary) | forged_states(folder)
    cases |= {f"state.json: {name}": content for name, content in states.items()}
    cases |= {f"manifest.json: {name}": content for name, content in pickles(canary).items()}
    sound = {path.name: path.read_bytes() for path in folder.iterdir()}
    outcomes = []
    for case, content in cases.items():
        forge(folder, case.partition(":")[0], content)
        outcomes.append(refuse(resume, named=folder, case=case))
        for file, before in sound.items():
            (folder / file).write_bytes(before)
    assert in_child(resume).fault == ""
    figure("hostile training states", in_words(outcomes))
