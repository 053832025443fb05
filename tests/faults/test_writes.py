"""Each write fails once at each of its operations: what was there stands, or what was to come."""

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from resnet_cifar100.bundle import load_bundle, save_bundle
from resnet_cifar100.config import Config
from resnet_cifar100.engine.checkpoint import load_newest_state, remove_leftovers, save_state
from resnet_cifar100.errors import CheckpointError
from resnet_cifar100.storage import replace_file, sha256_of
from tests.bundles import digest_of
from tests.faults.fuse import Fuse, KilledError, every_fault
from tests.faults.training import leftovers
from tests.interruptions import within

NEVER = 10**9


def survive(act: Callable[[], object], fuse: Fuse) -> None:
    """Do it until the fuse blows; what a user sees of that is nothing but a CheckpointError."""
    with fuse, contextlib.suppress(KilledError, CheckpointError):
        act()


def state_in(run_dir: Path) -> str | None:
    """Hash all that a run would resume from; None where there is nothing yet."""
    saved, _ = load_newest_state(run_dir)
    if saved is None:
        return None
    digest = hashlib.sha256(json.dumps([saved.step, vars(saved.history)]).encode())
    for name, tensor in sorted(saved.tensors.items()):
        digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()


@pytest.mark.parametrize(
    ("before", "step", "keep"),
    [((), 1, 2), ((1, 2), 3, 2), ((2,), 2, 1)],
    ids=["the first", "the next", "the same step again"],
)
def test_a_state_whose_writing_fails_anywhere_leaves_the_old_or_the_new(
    before, step, keep, make_state, tmp_path, full, figure, request
):
    old = tmp_path / "old"
    old.mkdir()
    for earlier in before:
        save_state(make_state(earlier, keep_checkpoints=keep), old)
    state = make_state(step, mark=7.0, keep_checkpoints=keep)
    shutil.copytree(old, tmp_path / "new")
    save_state(state, tmp_path / "new")
    allowed = {state_in(old), state_in(tmp_path / "new")}
    assert len(allowed) == 2
    count = 0
    for fuse in every_fault(full=full):
        run_dir = Path(shutil.copytree(old, tmp_path / "run"))
        survive(lambda run_dir=run_dir: save_state(state, run_dir), fuse)
        assert state_in(run_dir) in allowed
        remove_leftovers(run_dir, within(Config(), tmp_path))
        assert not leftovers(run_dir)
        save_state(state, run_dir)
        assert state_in(run_dir) == state_in(tmp_path / "new")
        assert len(list((run_dir / "state").iterdir())) <= keep
        shutil.rmtree(run_dir)
        count += 1
    name = request.node.callspec.id
    figure(f"save_state ({name}), broken at each operation", f"{count:,} of {count:,} old or new")


def test_a_best_model_whose_writing_fails_anywhere_is_the_old_or_the_new(
    make_bundle, tmp_path, full, figure
):
    old, new = make_bundle(1), make_bundle(2)
    count = 0
    for fuse in every_fault(full=full):
        path = tmp_path / "run" / "best_model.pth"
        save_bundle(old, path)
        survive(lambda path=path: save_bundle(new, path), fuse)
        assert digest_of(load_bundle(path)) in {digest_of(old), digest_of(new)}
        checksum = path.with_name("best_model.pth.sha256")
        if checksum.exists():
            assert checksum.read_text() == f"{sha256_of(path.read_bytes())}  best_model.pth\n"
        remove_leftovers(path.parent, within(Config(), tmp_path))
        assert not leftovers(tmp_path)
        shutil.rmtree(path.parent)
        count += 1
    figure("best_model.pth, broken at each operation", f"{count:,} of {count:,} old or new")


def test_a_file_whose_replacing_fails_anywhere_is_the_old_or_the_new(tmp_path, full, figure):
    count = 0
    for fuse in every_fault(full=full):
        path = tmp_path / "run" / "metrics.jsonl"
        replace_file(path, "old" * 1000)
        survive(lambda path=path: replace_file(path, "new" * 2000), fuse)
        assert path.read_text() in {"old" * 1000, "new" * 2000}
        remove_leftovers(path.parent, within(Config(), tmp_path))
        assert list(path.parent.iterdir()) == [path]
        count += 1
    figure("replace_file, broken at each operation", f"{count:,} of {count:,} old or new")


def test_an_error_of_the_disk_is_one_sentence_and_leaves_no_litter(make_state, tmp_path):
    """Where cleaning up works: the error has passed, or the program would be killed."""
    state = make_state(1)

    def save() -> None:
        save_state(state, tmp_path)
        replace_file(tmp_path / "run.json", "{}")

    said = []
    for number in range(1, NEVER):
        fuse = Fuse(number, "error")
        try:
            with fuse:
                save()
        except CheckpointError as error:
            said.append(str(error))
        if not fuse.is_blown:
            break
        assert not leftovers(tmp_path)
        shutil.rmtree(tmp_path / "state", ignore_errors=True)
    assert len(said) > 10
    assert all("Input/output error" in message and "\n" not in message for message in said)


def test_leftovers_that_cannot_be_removed_do_not_stop_a_run(tmp_path):
    (tmp_path / "state" / ".step_00000001.1.tmp").mkdir(parents=True)
    (tmp_path / ".run.json.1.tmp").write_text("half")
    with Fuse(1, "errors"):
        remove_leftovers(tmp_path, within(Config(), tmp_path))
    (tmp_path / ".folder.1.tmp").mkdir()
    remove_leftovers(tmp_path, within(Config(), tmp_path))
    assert not leftovers(tmp_path / "state")
    assert not (tmp_path / ".run.json.1.tmp").exists()


@pytest.mark.parametrize("what", ["state", "bundle", "file"])
def test_no_name_appears_before_its_content_is_on_the_disk(what, make_state, make_bundle, tmp_path):
    acts = {
        "state": lambda: save_state(make_state(1), tmp_path),
        "bundle": lambda: save_bundle(make_bundle(), tmp_path / "best_model.pth"),
        "file": lambda: replace_file(tmp_path / "run.json", "{}"),
    }
    with Fuse(NEVER) as fuse:
        acts[what]()
    trace = fuse.trace
    written = {name for step in trace if step.startswith("write ") for name in [step[6:]]}
    renames = [at for at, step in enumerate(trace) if step.startswith(("rename", "replace"))]
    assert written
    assert renames
    for name in written:
        last_write = max(at for at, step in enumerate(trace) if step == f"write {name}")
        synced = trace.index(f"fsync {name}")
        renamed = min(at for at in renames if at > last_write)
        assert last_write < synced < renamed
    for at in renames:
        folder = tmp_path / "state" if what == "state" else tmp_path
        assert trace[at + 1] == f"fsync {folder.name}"
    if what == "state":  # the folder's own names too, before it gets its final one
        temporary = trace[renames[0]].split()[1]
        assert trace[renames[0] - 1] == f"fsync {temporary}"
