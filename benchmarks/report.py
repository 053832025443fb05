"""How long `analyze` takes for a network, and how much memory.

python -m benchmarks.report --out FOLDER [--rounds 3]

The network is an untrained resnet44v2, which costs what a trained one does, on the 10,000 test
images of CIFAR-100 in data/.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.page import Table, keep
from resnet_cifar100.bundle import Bundle, save_bundle
from resnet_cifar100.config import Config
from resnet_cifar100.data.cifar100 import load_dataset
from resnet_cifar100.data.transforms import Preprocess
from resnet_cifar100.models.factory import create_model
from resnet_cifar100.runtime import environment

HOW = (
    "`python -m resnet_cifar100 analyze` of an untrained resnet44v2 on the 10,000 test images, "
    "1,000 of them corrupted in 12 ways, all figures drawn: a process from start to end. Medians "
    "over {rounds} rounds, and lowest to highest."
)
PEAK = "import pathlib, runpy, sys\n"
PEAK += "try: runpy.run_module('resnet_cifar100', run_name='__main__')\n"
PEAK += "finally:\n"  # not ru_maxrss, which begins at the peak of the process that started this one
PEAK += "    status = pathlib.Path('/proc/self/status').read_text()\n"
PEAK += "    print(status.split('VmHWM:')[1].split()[0], file=sys.stderr)"


def save_untrained(path: Path) -> None:
    """Write an untrained resnet44v2 that names CIFAR-100 as its data."""
    config = Config()
    dataset = load_dataset(config)
    bundle = Bundle(
        model_config=config.model_config,
        model=create_model(config.model_config),
        preprocess=Preprocess(config.image_size),
        fine_names=dataset.fine_names,
        coarse_names=dataset.coarse_names,
        fine_to_coarse=dataset.fine_to_coarse,
        provenance={
            "dataset": dataset.title,
            "metrics": {},
            "config": config.to_json(),
            "environment": environment(),
        },
    )
    save_bundle(bundle, path)


def measure(path: Path, out: Path) -> tuple[float, float]:
    """Return seconds and MiB of one analysis."""
    flags = ["analyze", str(path), "--out", str(out), "--device", "cpu"]
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", PEAK, *flags], check=True, capture_output=True, text=True
    )
    return time.perf_counter() - started, int(done.stderr.split()[-1]) / 1024


def main() -> None:
    """Measure, print the table and write --out."""
    parser = argparse.ArgumentParser(description="Time and memory of analyze.")
    parser.add_argument("--out", type=Path, required=True, help="folder for the record")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_untrained(folder / "network.pth")
        rounds = [measure(folder / "network.pth", folder / "out") for _ in range(asked.rounds)]
    seconds, mebibytes = (list(values) for values in zip(*rounds, strict=True))
    rows = [
        [what, f"{statistics.median(values):,.0f} ({min(values):,.0f} to {max(values):,.0f})"]
        for what, values in (("seconds", seconds), ("peak memory, MiB", mebibytes))
    ]
    table = Table(
        name="report",
        title="A report of resnet44v2",
        how=HOW.format(rounds=asked.rounds),
        head=["What", "Measured"],
        rows=rows,
        samples={"seconds": seconds, "mebibytes": mebibytes},
    )
    keep(table, asked.out)


if __name__ == "__main__":
    main()
