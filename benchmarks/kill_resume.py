"""Kill a real training run with SIGKILL in the middle of an epoch, resume it, and compare the bits.

    python -m benchmarks.kill_resume [--kills 3] [--out FOLDER] [flags of train.py ...]

Trains twice with the same flags: once straight through, once killed at random moments and resumed
until it ends. Prints the SHA-256 over all final tensors (weights, optimizer, generators) of both.
"""

import argparse
import hashlib
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from resnet_cifar100.cli.screen import say
from resnet_cifar100.engine.checkpoint import load_newest_state
from resnet_cifar100.errors import CheckpointError
from resnet_cifar100.runtime import environment
from resnet_cifar100.storage import replace_file


def train(folder: Path, flags: list[str]) -> subprocess.Popen[bytes]:
    """Start or resume the run in `folder`."""
    places = ["--run-dir", str(folder / "run"), "--checkpoint-path", str(folder / "best_model.pth")]
    places += ["--log-file", str(folder / "logs.md"), "--resume"]
    return subprocess.Popen(
        [sys.executable, "train.py", *flags, *places], stdout=subprocess.DEVNULL
    )


def final_state(folder: Path) -> tuple[int, str]:
    """Return the step of the newest state of a run and the SHA-256 over its tensors."""
    saved, _ = load_newest_state(folder / "run")
    if saved is None:
        raise CheckpointError(f"{folder} has no state: the run did not train")
    digest = hashlib.sha256()
    for name, tensor in sorted(saved.tensors.items()):
        digest.update(name.encode() + tensor.numpy().tobytes())
    return saved.step, digest.hexdigest()


def finish(folder: Path, flags: list[str]) -> float:
    """Let the run in `folder` go to its end; return the seconds it took."""
    started = time.monotonic()
    code = train(folder, flags).wait()
    if code:
        raise SystemExit(f"training ended with exit code {code}")
    return time.monotonic() - started


def kill_sometime(folder: Path, flags: list[str], seconds: float) -> str:
    """Start or resume the run and kill it after about `seconds`; return what was there then."""
    process = train(folder, flags)
    time.sleep(seconds)
    process.kill()
    if process.wait() != -signal.SIGKILL:
        raise SystemExit("the run ended before it could be killed: try more --epochs")
    saved, faults = load_newest_state(folder / "run")
    if faults:
        raise SystemExit(f"a damaged state was left: {faults}")
    return f"killed after {seconds:.1f} s; newest state at step {saved.step if saved else 'none'}"


def main() -> None:
    """Run both, print the comparison, and write it to the folder given by --out."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--out", type=Path)
    asked, flags = parser.parse_known_args()
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as temporary:
        straight, killed = Path(temporary) / "straight", Path(temporary) / "killed"
        seconds = finish(straight, flags)
        say(f"straight: {seconds:.0f} s")
        # Some progress is made each time, and the last kill still falls inside the run.
        kills = []
        for _ in range(asked.kills):
            kills.append(kill_sometime(killed, flags, seconds * rng.uniform(0.2, 0.35)))
            say(kills[-1])
        finish(killed, flags)
        (step, expected), (last, found) = final_state(straight), final_state(killed)
    is_equal = (step, expected) == (last, found)
    say(f"straight: step {step}, {expected}\nresumed:  step {last}, {found}")
    say("equal, bit for bit" if is_equal else "DIFFERENT")
    if asked.out:
        record = {"flags": flags, "kills": kills, "steps": step, "straight": expected}
        record |= {"resumed": found, "equal": is_equal, "environment": environment()}
        replace_file(asked.out / "result.json", json.dumps(record, indent=2) + "\n")
        lines = [f"# kill -9 and resume: `{' '.join(flags)}`", "", *(f"- {kill}" for kill in kills)]
        lines += ["", f"Straight: `{expected}`  ", f"Resumed: `{found}`  ", ""]
        lines += [f"Step {step}; {'equal, bit for bit' if is_equal else 'DIFFERENT'}.", ""]
        replace_file(asked.out / "README.md", "\n".join(lines))
    sys.exit(not is_equal)


if __name__ == "__main__":
    main()
