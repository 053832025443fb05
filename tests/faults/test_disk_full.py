"""Disks that are full, read-only or missing a file: nothing is lost, and one sentence says so."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from resnet_cifar100.cli import main
from resnet_cifar100.data.cifar100 import SYNTHETIC_FOLDER
from resnet_cifar100.engine.checkpoint import load_newest_state, save_state
from tests.faults.disks import disk_of, fill, make_read_only
from tests.processes import run
from tests.test_interrupt import command

resource = pytest.importorskip("resource", reason="needs a POSIX system")
from tests.faults.child import Outcome, in_child  # noqa: E402

PAGE = 4096


def pages_of(folder: Path) -> int:
    """The pages that the files below take, and one for each folder."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return sum(-(-path.stat().st_size // PAGE) for path in files)


def sizes(largest: int, full: bool) -> list[int]:
    count = 40 if full else 4
    return [2 * largest * number // (count - 1) for number in range(count)]


def assert_kept(outcome: Outcome, run_dir: Path) -> bool:
    """The newest state is the old or the new, there is no litter; return whether it is the new."""
    saved, faults = load_newest_state(run_dir)
    assert faults == []
    assert not list(run_dir.rglob(".*"))
    if not outcome.fault:
        assert saved.step == 3
        return True
    assert saved.step == 2
    assert outcome.fault == "CheckpointError"
    assert "cannot be written" in outcome.message
    assert "\n" not in outcome.message
    return False


def report(figure: Callable[[str, str], None], name: str, saved: list[bool]) -> None:
    count, done = len(saved), sum(saved)
    assert 0 < done < count
    text = f"{count} of {count} keep a sound state; {done} had room for the new one"
    figure(f"save_state, {count} {name}", text)


def test_a_state_that_outgrows_its_disk_leaves_the_one_before(
    run_dir, make_state, tmp_path, full, figure
):
    state, saved = make_state(3), []
    largest = (run_dir / "state" / "step_00000002" / "tensors.safetensors").stat().st_size
    for size in sizes(largest, full):
        copy = Path(shutil.copytree(run_dir, tmp_path / "copy"))
        outcome = in_child(lambda copy=copy: save_state(state, copy), most_file_bytes=size)
        saved.append(assert_kept(outcome, copy))
        assert saved[-1] == (size >= largest)
        shutil.rmtree(copy)
    report(figure, "limits to the size of files", saved)


def test_a_state_that_fills_its_disk_leaves_the_one_before(
    run_dir, make_state, tmp_path, full, figure
):
    state, saved = make_state(3), []
    taken, needed = pages_of(run_dir), pages_of(run_dir / "state" / "step_00000002")
    for room in sizes(needed * PAGE, full):
        with disk_of(taken * PAGE + room, tmp_path / "disk") as disk:
            copy = Path(shutil.copytree(run_dir, disk / "run"))
            outcome = in_child(lambda copy=copy: save_state(state, copy))
            saved.append(assert_kept(outcome, copy))
            assert saved[-1] == (room >= needed * PAGE)
    report(figure, "sizes of a disk", saved)


@pytest.fixture
def say_one_sentence(tiny_data_dir, tmp_path, full, capfd) -> Callable[..., None]:
    """Return a check that training with these flags ends with this exit code and one sentence."""

    def check(*flags: str, code: int, about: str, data_dir: Path = tiny_data_dir) -> None:
        if full:
            ended = run(*command(tmp_path, data_dir, *flags))
            code_given, errors = ended.returncode, ended.stderr
        else:  # the same without starting Python anew
            words = command(tmp_path, data_dir, *flags)
            outcome = in_child(lambda: sys.exit(main(["train", *words[1:]])))
            code_given, errors = int(outcome.message), capfd.readouterr().err
        assert code_given == code, errors
        assert len(errors.splitlines()) == 1
        assert about in errors

    return check


def test_a_lost_data_file_ends_training_with_one_sentence(
    say_one_sentence, tiny_data_dir, tmp_path, figure
):
    data_dir = Path(shutil.copytree(tiny_data_dir, tmp_path / "data"))
    (data_dir / SYNTHETIC_FOLDER / "test").unlink()
    about = "test cannot be read (No such file or directory)"
    say_one_sentence(code=2, about=about, data_dir=data_dir)
    figure("train.py without one data file", "exit code 2, one sentence")


def test_a_full_disk_under_the_log_ends_training_with_one_sentence(
    say_one_sentence, tmp_path, figure
):
    with disk_of(PAGE, tmp_path / "disk") as disk:
        fill(disk)
        about = "logs.md cannot be written (No space left on device)"
        say_one_sentence("--log-file", str(disk / "logs.md"), code=4, about=about)
        assert [path.name for path in disk.iterdir()] == ["full"]
    figure("train.py with its log on a full disk", "exit code 4, one sentence, no litter")


def test_a_read_only_folder_ends_training_with_one_sentence(say_one_sentence, tmp_path, figure):
    with disk_of(16 * PAGE, tmp_path / "disk") as disk:
        make_read_only(disk)
        about = "run cannot be used (Read-only file system)"
        say_one_sentence("--run-dir", str(disk / "run"), code=4, about=about)
    figure("train.py in a read-only folder", "exit code 4, one sentence")


def test_files_that_may_not_grow_end_training_with_one_sentence(say_one_sentence, figure):
    code, about = 4, "cannot be written (File too large)"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        say_one_sentence(code=code, about=about)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    figure("train.py where no file may pass 1,000 bytes", "exit code 4, one sentence")
