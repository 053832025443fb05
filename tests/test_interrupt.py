"""Runs told to stop by Ctrl-C and SIGTERM, as a user meets them; tests/faults has kill -9."""

import json
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from resnet_cifar100.engine.checkpoint import load_newest_state
from tests.conftest import REPOSITORY
from tests.processes import run

SETTINGS = [
    *("--recipe", "smoke", "--dataset", "synthetic", "--train-size", "0", "--val-size", "0"),
    *("--early-stopping-patience", "0", "--batch-size", "25"),
    *("--image-size", "8", "--epochs", "4", "--num-threads", "1", "--device", "cpu"),
    *("--precision", "fp32"),
    *("--checkpoint-minutes", "0.002", "--log-steps", "1"),
]


def command(folder: Path, data_dir: Path, *more: str) -> list[str]:
    """Return the words for Python that train in `folder`."""
    places = ["--data-dir", data_dir, "--run-dir", folder / "run", "--log-file", folder / "logs.md"]
    places += ["--checkpoint-path", folder / "best_model.pth"]
    return ["train.py", *SETTINGS, *map(str, places), *more]


def wait_for_progress(run_dir: Path, process: subprocess.Popen[bytes]) -> None:
    """Return once the process has saved a state of its own, or has ended."""
    before = set((run_dir / "state").glob("step_*"))
    while process.poll() is None and set((run_dir / "state").glob("step_*")) <= before:
        time.sleep(0.02)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_run_in_order_and_says_how_to_go_on(number, code, tmp_path, tiny_data_dir):
    with subprocess.Popen(
        [sys.executable, *command(tmp_path, tiny_data_dir, "--epochs", "400")],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        wait_for_progress(tmp_path / "run", process)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == code
    assert f"--resume --run-dir {tmp_path / 'run'}" in errors
    assert "Traceback" not in errors
    status = json.loads((tmp_path / "run" / "run.json").read_text())["status"]
    assert status.startswith("interrupted")


def test_a_reader_that_leaves_ends_no_training(tmp_path, tiny_data_dir):
    """As `python train.py | head -1` does."""
    words = ["--recipe", "smoke", "--dataset", "synthetic", "--data-dir", str(tiny_data_dir)]
    sizes = ["--train-size", "200", "--val-size", "200", "--epochs", "1"]
    with subprocess.Popen(
        [sys.executable, REPOSITORY / "train.py", *words, *sizes],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        process.stdout.readline()
        process.stdout.close()
        complaint = process.stderr.read()
    assert (process.returncode, complaint) == (0, "")
    assert '"finished"' in next(tmp_path.glob("checkpoints/*/run.json")).read_text()


def test_a_run_whose_time_is_up_says_the_command_that_goes_on_with_it(tmp_path, tiny_data_dir):
    folder = tmp_path / "my runs"
    folder.mkdir()
    hours = ("--max-hours", str(1 / 3600), "--epochs", "400")
    stopped = run(*command(folder, tiny_data_dir, *hours))
    assert stopped.returncode == 8, stopped.stderr
    sentence, words = stopped.stderr.strip().split("Go on with: ")
    assert "and saved" in sentence
    step = load_newest_state(folder / "run")[0].step
    _, *words = shlex.split(words)
    assert words == ["train.py", "--resume", "--run-dir", f"{folder}/run"]
    resumed = run(*words, "--max-hours", "0", "--epochs", step // 16 + 1)
    assert resumed.returncode == 0, resumed.stderr
    assert f"at step {step} of" in resumed.stdout
