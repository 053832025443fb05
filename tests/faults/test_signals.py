"""SIGTERM at random moments: the state is saved, the code is 143, and the run goes on exactly."""

import dataclasses
import random
import signal
import time

import pytest

from resnet_cifar100.engine.checkpoint import load_newest_state
from tests.engine.test_resume import fingerprint
from tests.faults.training import end_of, last_words, seconds_of_a_whole_life, settings, start


@pytest.mark.slow
def test_runs_told_to_stop_save_where_they_are_and_go_on_exactly(
    tiny_data_dir, tmp_path, full, figure
):
    rng = random.Random(0)
    goal = 50 if full else 4
    stops, slowest, runs = 0, 0.0, 0
    while stops < goal:
        # Saved at the stops alone: a state at the interrupted step is the work of the stop.
        config = settings(tiny_data_dir, seed=runs, epochs=20, checkpoint_minutes=1000)
        straight, stopped = tmp_path / f"straight{runs}", tmp_path / f"stopped{runs}"
        seconds = seconds_of_a_whole_life(config, straight)
        code = -1
        while code != 0:
            process = start(config, stopped)
            process.join(rng.uniform(0, seconds / 2))
            process.terminate()
            told = time.monotonic()
            code = end_of(process, seconds=10)
            slowest = max(slowest, time.monotonic() - told)
            if code == 0:  # it was done before
                break
            # Before it began to listen, the signal itself ends it: 143 for a shell all the same.
            assert code in (128 + signal.SIGTERM, -signal.SIGTERM)
            words = last_words(stopped) if code > 0 else ""
            if "at step" in words:
                saved, _ = load_newest_state(stopped / "run")
                assert f"stopped at step {saved.step} of" in words
            stops += 1
        assert fingerprint(stopped / "run") == fingerprint(straight / "run")
        runs += 1
    figure("SIGTERM at random moments", f"{stops} of {stops}: exit 143 within {slowest:.1f} s")


@pytest.mark.slow
def test_a_run_stops_before_its_time_is_up_and_goes_on_exactly(tiny_data_dir, tmp_path):
    config = settings(tiny_data_dir, checkpoint_minutes=1000)
    seconds = seconds_of_a_whole_life(config, tmp_path / "straight")
    limited = dataclasses.replace(config, max_hours=0.6 * seconds / 3600)
    codes = [end_of(start(limited, tmp_path / "limited"))]
    assert codes == [8]
    assert "and saved" in last_words(tmp_path / "limited")
    while codes[-1] == 8 and len(codes) < 10:
        codes.append(end_of(start(limited, tmp_path / "limited")))
    assert codes[-1] == 0
    assert fingerprint(tmp_path / "limited" / "run") == fingerprint(tmp_path / "straight" / "run")
