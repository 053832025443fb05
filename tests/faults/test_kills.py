"""kill -9 at random moments: every run ends by itself with the bits of one that was left alone."""

import random
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

from resnet_cifar100.engine.checkpoint import load_newest_state
from tests.faults.training import (
    end_of,
    last_words,
    leftovers,
    newest_step,
    seconds_of_a_whole_life,
    settings,
    start,
)
from tests.interruptions import fingerprint


def run_until_end_under_kills(config, folder: Path, rng: random.Random, longest_life: float) -> int:
    """Kill a run again and again until a life outlasts its killer; return the kills.

    The killer waits a little longer after each life in which nothing was saved, for a machine may
    have become too slow to reach a step in the longest life that was enough before.
    """
    kills, saved_step = 0, 0
    while True:
        process = start(config, folder)
        process.join(rng.uniform(0, longest_life))
        process.kill()
        code = end_of(process)
        saved, faults = load_newest_state(folder / "run")
        assert not faults  # no state is damaged, and none is lost:
        step = saved.step if saved else 0
        assert step >= saved_step
        if step == saved_step:
            longest_life *= 1.1
        saved_step = step
        if code == 0:
            return kills
        assert code == -signal.SIGKILL
        kills += 1


def test_runs_killed_at_random_moments_end_with_the_bits_of_one_that_was_not(
    tiny_data_dir, tmp_path, full, figure
):
    rng = random.Random(0)
    goal = 200 if full else 6
    kills = runs = 0
    while kills < goal:
        config = settings(tiny_data_dir, seed=runs)
        straight, killed = tmp_path / f"straight{runs}", tmp_path / f"killed{runs}"
        seconds = seconds_of_a_whole_life(config, straight)
        kills += run_until_end_under_kills(config, killed, rng, seconds / 2)
        assert fingerprint(killed / "run") == fingerprint(straight / "run")
        assert (killed / "best_model.pth").read_bytes()
        assert leftovers(killed) == []
        runs += 1
    figure("kill -9 at random moments", f"{kills} of {kills} resumed, {runs} runs with equal bits")


def test_a_killed_owner_does_not_keep_its_folder_and_a_living_one_does(
    tiny_data_dir, tmp_path, full, figure
):
    config, tries = settings(tiny_data_dir, epochs=200), 20 if full else 2
    for number in range(tries):
        folder = tmp_path / str(number)
        owner = start(config, folder)
        wait_for_a_state_after(-1, folder, owner)
        assert end_of(start(config, folder)) == 4
        assert "another process is training" in last_words(folder)
        assert owner.is_alive()
        owner.kill()
        assert end_of(owner) == -signal.SIGKILL
        left = newest_step(folder / "run")
        heir = start(config, folder)
        wait_for_a_state_after(left, folder, heir)
        heir.kill()
        end_of(heir)
    figure("two trainers, one folder; its owner killed", f"{tries} of {tries} refused, recovered")


def wait_for_a_state_after(step: int, folder: Path, process: BaseProcess) -> None:
    """Return once a living process has saved a later state than that."""
    while newest_step(folder / "run") <= step:
        assert process.is_alive()
        time.sleep(0.05)
