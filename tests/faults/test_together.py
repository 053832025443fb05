"""Killed at any step and resumed; values that are not finite; told to stop: several processes."""

import dataclasses
import itertools
import random
import signal
import time

import pytest

from resnet_cifar100.engine.checkpoint import load_newest_state
from resnet_cifar100.engine.record import load_record
from tests.faults.poison import FrozenNorms, Kill, KillOne, Poison
from tests.faults.training import (
    end_of,
    ends_of,
    last_words,
    leftovers,
    seconds_of_a_whole_life,
    settings,
    start,
    start_together,
)
from tests.interruptions import fingerprint

# Before anything, within and at the end of epochs, in and after the warm-up, near the end.
POINTS = (0, 1, 7, 8, 9, 13, 15, 16, 20, 24, 30, 31)


def train(config, folder, processes: int, fault=None) -> list[int]:
    if processes > 1:
        return ends_of(start_together(config, folder, fault, processes))
    return [end_of(start(config, folder, fault=fault))]


def test_runs_killed_at_any_step_resume_with_the_same_bits(tiny_data_dir, tmp_path, full, figure):
    for processes in (1, 2, 3) if full else (3,):
        equal = 0
        for precision in ("fp32", "bf16") if full else ("fp32",):
            config = settings(tiny_data_dir, precision=precision)
            if processes == 3:  # of more than the megabyte of gradients that go together
                config = dataclasses.replace(config, width=1.0, batch_size=48)
            place = tmp_path / f"{processes}-{precision}"
            assert not any(train(config, place, processes))
            for step in POINTS if full else (29,):  # the last epoch alone leaves its losses
                folder = place / str(step)
                assert train(config, folder, processes, Kill(step)) == [-signal.SIGKILL] * processes
                assert not any(train(config, folder, processes))
                assert fingerprint(folder / "run") == fingerprint(place / "run")
                assert leftovers(folder) == []
                equal += 1
        name = f"killed at {len(POINTS)} steps, fp32 and bf16, processes: {processes}"
        figure(name, f"{equal} of {equal} resumed with equal bits")


def test_who_loses_the_others_ends_with_a_sentence_and_a_code_of_its_own(tiny_data_dir, tmp_path):
    config = settings(tiny_data_dir)
    together = start_together(config, tmp_path, KillOne(5))
    assert ends_of(together) == [9, -signal.SIGKILL]
    assert "another process of this run has ended" in last_words(tmp_path)


def test_what_is_not_finite_in_one_process_stops_both_before_the_step(
    tiny_data_dir, tmp_path, full, figure
):
    values, places = ("nan", "inf", "-inf"), ("input", "loss", "gradient", "norm")
    every = list(itertools.product(values, places, (0, 1)))
    config = settings(tiny_data_dir, epochs=1)
    cases = every if full else [every[3], every[4], every[7]]
    for value, where, who in cases:
        folder = tmp_path / f"{value}-{where}-{who}"
        folder.mkdir()
        poison = Poison(float(value), where, who, step=5, folder=folder)
        assert ends_of(start_together(config, folder, poison)) == [5, 5]
        for rank in (0, 1):
            assert "at step 5" in last_words(folder, rank)
            assert len(list(folder.glob(f"weights-{rank}-5-*"))) == 1  # the same before and after
            assert not list(folder.glob(f"weights-{rank}-6-*"))
        assert load_newest_state(folder / "run")[0].step == 5
    figure("NaN or infinite on one of two ranks", f"{len(cases)} of {len(cases)} stop in time")


def test_two_processes_stop_together_whichever_is_told(tiny_data_dir, tmp_path, full, figure):
    rng = random.Random(0)
    config = settings(tiny_data_dir, epochs=12, checkpoint_minutes=1000)
    told = itertools.cycle([(0,), (1,), (0, 1)])
    seconds = seconds_of_a_whole_life(config, tmp_path / "alone")
    assert ends_of(start_together(config, tmp_path / "straight")) == [0, 0]
    goal, stops, slowest, runs = 30 if full else 3, 0, 0.0, 0
    while stops < goal:
        folder, is_finished = tmp_path / f"stopped{runs}", False
        while not is_finished:
            for words in folder.glob("last_words.*"):
                words.unlink()
            processes = start_together(config, folder)
            wait_for_training(folder, processes, rng.uniform(0, seconds / 2))
            for rank in next(told):
                processes[rank].terminate()
            began = time.monotonic()
            codes = ends_of(processes)
            slowest = max(slowest, time.monotonic() - began)
            is_finished = load_record(folder / "run").status == "finished"
            is_early = -signal.SIGTERM in codes  # before there was anything to save
            if not (is_finished or is_early):
                assert codes == [143, 143]
                step = load_newest_state(folder / "run")[0].step
                assert all(f"at step {step} of" in last_words(folder, rank) for rank in (0, 1))
                stops += 1
        assert fingerprint(folder / "run") == fingerprint(tmp_path / "straight" / "run")
        runs += 1
    figure("SIGTERM to one of two ranks, or both", f"{stops} of {stops}: 143 in {slowest:.1f} s")


def wait_for_training(folder, processes, seconds: float) -> None:
    """Wait until this session is logged, and then a little; or until it has ended."""
    page = folder / "run" / "env.json"
    before = page.read_text() if page.exists() else ""
    while all(process.is_alive() for process in processes):
        if page.exists() and page.read_text() != before:
            processes[0].join(seconds)
            return
        time.sleep(0.01)


def test_a_run_goes_on_with_more_processes_and_with_fewer(tiny_data_dir, tmp_path, figure):
    config = settings(
        tiny_data_dir, augment=(), dropout=0.0, stochastic_depth=0.0, log_steps=1, lr=0.01
    )
    assert train(config, tmp_path / "one", 1, FrozenNorms()) == [0]
    for processes, last in ((1, 6), (2, 26)):
        codes = train(config, tmp_path / "both", processes, FrozenNorms(Kill(last)))
        assert codes == [-signal.SIGKILL] * processes
    assert train(config, tmp_path / "both", 1, FrozenNorms()) == [0]
    one, both = (load_record(tmp_path / name / "run").history for name in ("one", "both"))
    pairs = zip(one.steps, both.steps, strict=True)
    apart = [abs(a["train/loss"] - b["train/loss"]) for a, b in pairs]
    assert max(apart) < 1e-4
    sessions = [one["processes"] for one in load_record(tmp_path / "both" / "run").environments]
    assert sessions == [1, 2, 1]
    hits, same = ([row["train/top1"] for row in run.epochs] for run in (one, both))
    assert same == pytest.approx(hits, abs=0.0026)  # one image of 400
    figure(
        "1, then 2, then 1 process", f"losses of {len(apart)} steps at most {max(apart):.0e} apart"
    )
