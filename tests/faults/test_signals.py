"""SIGTERM at random moments: the state is saved, the code is 143, and the run goes on exactly."""

import dataclasses
import itertools
import random
import shutil
import signal
import time

import pytest

from resnet_cifar100.engine.checkpoint import load_newest_state
from resnet_cifar100.engine.runs import recorded_config
from resnet_cifar100.engine.stop import Stop
from resnet_cifar100.engine.trainer import fit
from resnet_cifar100.errors import CheckpointError, InterruptedRunError
from tests.faults.training import (
    end_of,
    last_words,
    seconds_of_a_whole_life,
    settings,
    start,
)
from tests.interruptions import fingerprint, within


def test_runs_told_to_stop_save_where_they_are_and_go_on_exactly(
    tiny_data_dir, tmp_path, full, figure
):
    rng = random.Random(0)
    goal = 50 if full else 4
    stops, saved, slowest, runs = 0, 0, 0.0, 0
    while stops < goal:
        # Saved at the stops alone: a state at the interrupted step is the work of the stop.
        config = settings(tiny_data_dir, seed=runs, epochs=20, checkpoint_minutes=1000)
        straight, stopped = tmp_path / f"straight{runs}", tmp_path / f"stopped{runs}"
        longest_life = seconds_of_a_whole_life(config, straight) / 2
        code = -1
        while code != 0:
            process = start(config, stopped)
            process.join(rng.uniform(0, longest_life))
            longest_life *= 1.1  # should the machine have become too slow to reach a step in it
            process.terminate()
            told = time.monotonic()
            code = end_of(process)
            slowest = max(slowest, time.monotonic() - told)
            if code == 0:  # it was done before
                break
            # Before it began to listen, the signal itself ends it: 143 for a shell all the same.
            assert code in (128 + signal.SIGTERM, -signal.SIGTERM)
            words = last_words(stopped) if code > 0 else ""
            if "at step" in words:
                state, _ = load_newest_state(stopped / "run")
                assert f"stopped at step {state.step} of" in words
            saved += "at step" in words
            stops += 1
        assert fingerprint(stopped / "run") == fingerprint(straight / "run")
        runs += 1
    assert saved
    figure("SIGTERM at random moments", f"{stops} of {stops}: exit 143 within {slowest:.1f} s")


def test_a_second_sigterm_changes_nothing_and_a_second_ctrl_c_ends_at_once():
    with Stop(0):
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
            signal.raise_signal(number)
        with pytest.raises(InterruptedRunError, match="without saving") as ended:
            signal.raise_signal(signal.SIGINT)
    assert ended.value.exit_code == 130


def test_a_signal_before_there_is_a_state_to_save_does_what_it_always_does():
    before = signal.getsignal(signal.SIGINT)
    stop = Stop(0)
    assert signal.getsignal(signal.SIGINT) == before
    with stop:
        assert signal.getsignal(signal.SIGINT) != before
    assert signal.getsignal(signal.SIGINT) == before


def test_settings_given_last_survive_a_kill_before_the_next_state(
    tiny_config, tiny_dataset, tmp_path, console
):
    run_dir = tmp_path / "run"
    record = fit(tiny_config, tiny_dataset, run_dir, console)
    longer = dataclasses.replace(tiny_config, epochs=tiny_config.epochs + 1)
    dataclasses.replace(record, config=longer, status="running").save(run_dir)
    assert recorded_config(run_dir) == longer
    for damaged in (b"{", b"\xff"):  # then those of the newest state
        (run_dir / "config.json").write_bytes(damaged)
        assert recorded_config(run_dir) == tiny_config
    shutil.rmtree(run_dir / "state")
    with pytest.raises(CheckpointError, match="cannot be used"):
        recorded_config(run_dir)


def test_a_run_stops_before_its_time_is_up_and_goes_on_exactly(
    tiny_data_dir, tiny_dataset, tmp_path, console, monkeypatch, straight
):
    config = within(settings(tiny_data_dir, checkpoint_minutes=1000), tmp_path)
    expected = straight(config).fingerprint
    clock = itertools.count()  # a second more whenever it is asked
    monkeypatch.setattr("resnet_cifar100.engine.stop.time.monotonic", lambda: float(next(clock)))
    limited = dataclasses.replace(config, max_hours=20 / 3600)
    for _ in range(2):
        began = next(clock)
        with pytest.raises(InterruptedRunError, match="and saved") as stopped:
            fit(limited, tiny_dataset, tmp_path / "run", console)
        assert stopped.value.exit_code == 8
        assert next(clock) - began < 20  # with the questions of this test
    fit(config, tiny_dataset, tmp_path / "run", console)
    assert fingerprint(tmp_path / "run") == expected
