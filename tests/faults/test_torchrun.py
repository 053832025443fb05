"""Under torchrun: a killed process is started again, a stopped torchrun by its user."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from resnet_cifar100.cli.train import training_settings
from resnet_cifar100.engine.record import load_record
from tests.conftest import REPOSITORY
from tests.faults.training import ends_of, free_port, newest_step, start_together
from tests.interruptions import fingerprint
from tests.test_interrupt import command, wait_for_progress

HALF_THE_STEPS = 40  # of 10 epochs
FLAGS = ("--batch-size", "50", "--dropout", "0.2", "--augment", "mixup", "--epochs", "10")
TWO_HERE = ("--standalone", "--nproc-per-node", "2")


def launch(
    folder: Path, data_dir: Path, *more: str, place: Sequence[str] = TWO_HERE
) -> subprocess.Popen[bytes]:
    """Start or resume a run of two processes; what they print goes to FOLDER/printed."""
    words = command(folder, data_dir, *FLAGS, "--resume", *more)
    torchrun = ["-m", "torch.distributed.run", "--max-restarts", "3", *place]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "printed").open("ab") as printed:
        return subprocess.Popen(
            [sys.executable, *torchrun, *words],
            cwd=REPOSITORY,
            stdout=printed,
            stderr=printed,
        )


def children_of(pid: int) -> list[int]:
    """Return the processes that one has started and that live, the oldest first."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rsplit(")", 1)[1].split()[:2]
        except OSError:  # it has just ended
            continue
        if int(parent) == pid and state != "Z":
            found.append(int(stat.parent.name))
    return sorted(found)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def wait_for(agent: subprocess.Popen[bytes], workers: Sequence[int]) -> int:
    """Return the exit code of torchrun, once all that it started has ended too."""
    try:
        code = agent.wait(120)
    finally:
        agent.kill()
        agent.wait()
    while any(map(is_alive, workers)):  # without torchrun they go on, and hold their folder
        time.sleep(0.05)
    return code


def wait_for_step(step: int, folder: Path, agent: subprocess.Popen[bytes]) -> None:
    """Return once a state at that step or a later one is saved."""
    while newest_step(folder / "run") < step:
        assert agent.poll() is None
        time.sleep(0.02)


def finish(folder: Path, data_dir: Path, victim: str, step: int) -> None:
    """Train with one kill from a step on; start torchrun again only where it was the victim."""
    agent = launch(folder, data_dir)
    wait_for_step(step, folder, agent)
    workers = children_of(agent.pid)
    pid = {"rank 0": workers[0], "rank 1": workers[-1], "torchrun": agent.pid}[victim]
    os.kill(pid, signal.SIGKILL)
    wait_for(agent, workers)
    if victim == "torchrun":
        assert launch(folder, data_dir).wait(120) == 0
    assert load_record(folder / "run").status == "finished"


def stop(folder: Path, data_dir: Path, step: int) -> float:
    """Tell torchrun to stop from a step on; return the seconds until all has ended in order."""
    agent = launch(folder, data_dir)
    wait_for_step(step, folder, agent)
    workers = children_of(agent.pid)
    agent.terminate()
    began = time.monotonic()
    assert wait_for(agent, workers) != 0
    stopped_at = f"interrupted: stopped at step {newest_step(folder / 'run')} of"
    assert load_record(folder / "run").status.startswith(stopped_at)
    return time.monotonic() - began


@pytest.fixture(scope="module")
def straight(tiny_data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the fingerprint of a run that nothing disturbed, in two processes without torchrun."""
    folder = tmp_path_factory.mktemp("straight")
    flags = command(folder, tiny_data_dir, *FLAGS)[1:]
    assert ends_of(start_together(training_settings(flags)[0], folder)) == [0, 0]
    return fingerprint(folder / "run")


def test_a_run_under_torchrun_outlives_the_death_of_any_process_and_a_stop(
    straight, tiny_data_dir, tmp_path, full, figure
):
    rng = random.Random(0)
    victims = ("rank 1", "rank 0", "torchrun")
    count, slowest = 20 if full else 1, 0.0
    for number in range(count):
        folder = tmp_path / str(number)
        slowest = max(slowest, stop(folder, tiny_data_dir, rng.randrange(HALF_THE_STEPS)))
        killed_at = rng.randrange(newest_step(folder / "run") + 1, HALF_THE_STEPS + 30)
        finish(folder, tiny_data_dir, victims[number % 3], killed_at)
        printed = (folder / "printed").read_text()
        assert printed.count("epoch  10/10") == 1  # the main process alone speaks
        assert "resnet_cifar100/" not in printed  # no traceback of ours
        assert fingerprint(folder / "run") == straight
    figure("SIGTERM to torchrun", f"{count} of {count} saved, ended within {slowest:.1f} s")
    figure("kill -9 of rank 0, rank 1 or torchrun", f"{count} of {count} go on to equal bits")


def test_a_machine_goes_on_without_one_that_dies(
    tiny_data_dir, tmp_path, full, figure, monkeypatch
):
    """Two torchruns stand for two machines with a disk in common; the first is where all meet."""
    if not full:
        pytest.skip("the one that lives waits half a minute for the other: --full has it")
    meeting = f"127.0.0.1:{free_port()}"
    machines = ("--rdzv-backend", "c10d", "--rdzv-endpoint", meeting)
    place = ("--nnodes", "1:2", "--nproc-per-node", "1", *machines)
    first, second = ((*place, "--local-addr", f"127.0.0.{number}") for number in (2, 1))
    monkeypatch.setenv("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
    one = launch(tmp_path, tiny_data_dir, "--epochs", "300", place=first)
    time.sleep(5)  # until it listens there
    other = launch(tmp_path, tiny_data_dir, "--epochs", "300", place=second)  # leads: it is lower
    while "2 processes" not in (tmp_path / "printed").read_text():
        assert one.poll() is None
        time.sleep(0.1)
    wait_for_progress(tmp_path / "run", one)
    for pid in (*children_of(other.pid), other.pid):
        os.kill(pid, signal.SIGKILL)
    died = time.monotonic()
    other.wait()
    wait_for_progress(tmp_path / "run", one)
    seconds = time.monotonic() - died
    workers = children_of(one.pid)
    one.terminate()
    assert wait_for(one, workers) != 0
    printed = (tmp_path / "printed").read_text()
    assert printed.count("2 processes") == 1
    assert "Resuming" in printed
    figure("one of two machines killed", f"the other goes on alone {seconds:.0f} s later")


def test_torchrun_does_not_start_a_run_again_whose_time_is_up(tiny_data_dir, tmp_path):
    agent = launch(tmp_path, tiny_data_dir, "--epochs", "1000", "--max-hours", str(4 / 3600))
    assert wait_for(agent, ()) == 0
    status = load_record(tmp_path / "run").status
    assert status.startswith("interrupted: stopped at step")
    assert (tmp_path / "printed").read_text().count("Resuming") == 0


def test_torchrun_gives_up_a_run_that_cannot_work(tiny_data_dir, tmp_path, full):
    place = (*TWO_HERE, "--max-restarts", str(int(full)))  # of which the last one counts
    agent = launch(tmp_path, tiny_data_dir, "--lr", "1e30", place=place)
    assert wait_for(agent, ()) != 0
    printed = (tmp_path / "printed").read_text()
    assert "at step" in printed  # of the first loss, gradient or norm that was not finite
    assert "resnet_cifar100/" not in printed  # the only traceback is torchrun's own
