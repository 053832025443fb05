"""Flipped bits, cut, lost and swapped files: noticed, named, and the state before is used."""

import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from resnet_cifar100.bundle import load_bundle, save_bundle, save_safetensors
from resnet_cifar100.engine.checkpoint import load_newest_state
from resnet_cifar100.errors import CheckpointError
from tests.bundles import digest_of

FILES = ("tensors.safetensors", "state.json", "manifest.json")


@pytest.fixture
def newest(run_dir, tmp_path) -> Path:
    """The newest state of a copy of that run, to be damaged."""
    return Path(shutil.copytree(run_dir, tmp_path / "run")) / "state" / "step_00000002"


def assert_passed_over(newest: Path, name: str) -> None:
    """The state before is used, and one sentence says which file is damaged."""
    saved, faults = load_newest_state(newest.parents[1])
    assert saved.step == 1
    assert len(faults) == 1
    assert str(newest) in faults[0]
    assert name in faults[0]
    assert "\n" not in faults[0]


def flips(size: int, count: int, seed: int) -> Iterator[tuple[int, int]]:
    noise = random.Random(seed)
    for _ in range(count):
        yield noise.randrange(size), 1 << noise.randrange(8)


def flip(path: Path, place: int, mask: int) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ mask]))


def test_every_flipped_bit_of_a_state_is_noticed(newest, full, figure):
    count = 2_000 if full else 60
    for number in range(count):
        path = newest / FILES[number % 3]
        ((place, mask),) = flips(path.stat().st_size, 1, seed=number)
        flip(path, place, mask)
        assert_passed_over(newest, path.name)
        flip(path, place, mask)
    saved, faults = load_newest_state(newest.parents[1])
    assert (saved.step, faults) == (2, [])
    figure("flipped bits in a training state", f"{count:,} of {count:,} detected")


def test_every_cut_of_a_state_is_noticed(newest, full, figure):
    count = 500 if full else 20
    noise = random.Random(0)
    for number in range(count):
        path = newest / FILES[number % 3]
        content = path.read_bytes()
        path.write_bytes(content[: noise.randrange(len(content)) if number > 2 else 0])
        assert_passed_over(newest, path.name)
        path.write_bytes(content)
    figure("cut files in a training state", f"{count:,} of {count:,} detected")


def edit(path: Path, change: Callable[[dict], object]) -> None:
    content = json.loads(path.read_bytes())
    change(content)
    path.write_text(json.dumps(content))


def facts_of_another(newest: Path) -> None:
    facts = json.loads((newest.with_name("step_00000001") / "manifest.json").read_bytes())["files"]
    edit(newest / "manifest.json", lambda content: content.update(files=facts))


def changed_without_its_sum(newest: Path) -> None:
    edit(newest / "state.json", lambda content: content.update(step=7))
    size = (newest / "state.json").stat().st_size
    edit(
        newest / "manifest.json",
        lambda content: content["files"]["state.json"].update(bytes=size),
    )


def copy_of_another(newest: Path) -> None:
    shutil.copy(newest.with_name("step_00000001") / FILES[0], newest / FILES[0])


def one_twice(newest: Path) -> None:
    shutil.copy(newest / "tensors.safetensors", newest / "state.json")


def upper_case_sum(newest: Path) -> None:
    facts = json.loads((newest / "manifest.json").read_bytes())["files"]["state.json"]
    edit(
        newest / "manifest.json",
        lambda content: content["files"]["state.json"].update(sha256=facts["sha256"].upper()),
    )


DAMAGES = {
    "tensors of another state": (copy_of_another, "tensors.safetensors"),
    "one file twice": (one_twice, "state.json"),
    "a folder for a file": (
        lambda newest: ((newest / "state.json").unlink(), (newest / "state.json").mkdir()),
        "state.json",
    ),
    "the manifest of another state": (facts_of_another, "tensors.safetensors"),
    "a manifest with the new size and the old sum": (changed_without_its_sum, "state.json"),
    "a manifest with a sum written otherwise": (upper_case_sum, "state.json"),
    "a manifest without a file": (
        lambda newest: edit(newest / "manifest.json", lambda c: c["files"].pop("state.json")),
        "manifest.json",
    ),
    "a manifest of no files": (
        lambda newest: edit(newest / "manifest.json", lambda content: content.update(files=7)),
        "manifest.json",
    ),
    "a list for a manifest": (
        lambda newest: (newest / "manifest.json").write_text("[1]"),
        "manifest.json",
    ),
    "a nest for a manifest": (
        lambda newest: (newest / "manifest.json").write_text("[" * 100_000),
        "manifest.json",
    ),
    "an unknown format": (
        lambda newest: edit(newest / "manifest.json", lambda content: content.update(format=99)),
        "manifest.json",
    ),
    "no format": (
        lambda newest: edit(newest / "manifest.json", lambda content: content.pop("format")),
        "manifest.json",
    ),
}


def test_a_state_that_is_not_what_was_saved_is_passed_over(newest, tmp_path, figure):
    run, tried = newest.parents[1], 0
    for damage, named in DAMAGES.values():
        copy = tmp_path / f"damaged-{tried}"
        shutil.copytree(run, copy)
        damage(copy / newest.relative_to(run))
        assert_passed_over(copy / newest.relative_to(run), named)
        tried += 1
    count = f"{tried} of {len(DAMAGES)} detected"
    figure("swapped, edited and foreign files in a training state", count)


@pytest.mark.parametrize("name", FILES)
def test_a_run_of_damaged_states_alone_names_every_file(name, newest):
    for folder in newest.parent.iterdir():
        (folder / name).write_bytes(b"")
    with pytest.raises(CheckpointError) as refused:
        load_newest_state(newest.parents[1])
    for folder in newest.parent.iterdir():
        assert str(folder / name) in str(refused.value)


@pytest.mark.parametrize("part", ["whole", "header"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_no_flipped_bit_of_a_network_is_believed(suffix, part, make_bundle, tmp_path, full, figure):
    """Bits of the zip format that say nothing may flip unseen: the network is then the same.

    The header is what is parsed first, where a flip makes the reader itself stumble.
    """
    path = tmp_path / f"best_model{suffix}"
    (save_bundle if suffix == ".pth" else save_safetensors)(make_bundle(), path)
    sound = digest_of(load_bundle(path))
    size = path.stat().st_size if part == "whole" else 6_000
    count, harmless = (500 if full else 15), 0
    for place, mask in flips(size, count, seed=1):
        flip(path, place, mask)
        try:
            assert digest_of(load_bundle(path)) == sound
            harmless += 1
        except CheckpointError as error:
            assert_names(error, path)
        flip(path, place, mask)
    assert digest_of(load_bundle(path)) == sound
    text = f"{count - harmless:,} of {count:,} refused, {harmless} say nothing, 0 believed"
    figure(f"flipped bits in best_model{suffix}, {part}", text)


def assert_names(error: CheckpointError, path: Path) -> None:
    assert str(path) in str(error)
    assert "Traceback" not in str(error)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_every_cut_of_a_network_is_refused(suffix, make_bundle, tmp_path, full, figure):
    path = tmp_path / f"best_model{suffix}"
    (save_bundle if suffix == ".pth" else save_safetensors)(make_bundle(), path)
    content, noise = path.read_bytes(), random.Random(0)
    count = 125 if full else 10
    for _ in range(count):
        path.write_bytes(content[: noise.randrange(len(content))])
        with pytest.raises(CheckpointError, match="best_model"):
            load_bundle(path)
    figure(f"cuts of best_model{suffix}", f"{count} of {count} refused")
