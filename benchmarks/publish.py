"""What is published against what was trained: ONNX, 8 bits, the Hub, a Space, a web page.

    python -m benchmarks.publish --out FOLDER [--only onnx hub kills space web]

Of the weights in weights/fast.safetensors, on the 10,000 test images of CIFAR-100 in data/. The Hub
is the stand-in of tests/export on loopback, talked to by the real client; the Space is installed
alone in a fresh environment; pages are driven in Chromium. Needs npm, Chromium and a package index.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.page import Table, keep
from benchmarks.published_pages import (
    ROOT,
    WEIGHTS,
    Rows,
    measure_space,
    measure_web,
    png,
    run,
)
from resnet_cifar100.bundle import load_bundle
from resnet_cifar100.cli.screen import say
from resnet_cifar100.data.images import load_image
from resnet_cifar100.engine.evaluate import load_split
from resnet_cifar100.export.files import compare_files, write_int8
from resnet_cifar100.export.forms import eager, predict_all, run_onnx
from resnet_cifar100.export.onnx import save_onnx
from resnet_cifar100.runtime import keep_freed_memory
from tests.export.hub_server import HubServer
from tests.export.hub_store import Repo
from tests.export.hub_store import environment as client_environment

TOKEN = "hf_" + "PlAnTeD0123456789abcdefghijklmnopqrs"
NET = ("model", "tester/fast")
HEAD = ["What", "Wanted", "Measured"]
KILLS = 20

PUSH = """
import sys
from pathlib import Path
from resnet_cifar100.export.hub import check_access, push_folder
token = check_access("tester/fast")
push_folder(Path(sys.argv[1]), "tester/fast", "model", token, private=False)
"""
PULL = """
import sys, numpy, torch
from huggingface_hub import snapshot_download
sys.path.append(snapshot_download("tester/fast", allow_patterns="*.py"))
from resnet_cifar100.export.pretrained import Classifier
network = Classifier.from_pretrained("tester/fast")
images = torch.from_numpy(numpy.load("images.npy"))
with torch.inference_mode():
    logits = torch.cat([network(batch) for batch in images.split(500)])
numpy.save("logits.npy", logits.numpy())
"""


def measure_onnx(folder: Path) -> Rows:
    """Compare the ONNX files with PyTorch, from the bytes of PNG files on."""
    bundle = load_bundle(WEIGHTS)
    _, test = load_split(bundle.provenance, "test", ROOT / "data")
    arrived = np.stack([load_image(png(image)) for image in test.images.numpy()])
    images = np.ascontiguousarray(arrived.transpose(0, 3, 1, 2))
    path = folder / "model.onnx"
    save_onnx(bundle, path)
    ours, theirs = predict_all(eager(bundle), images), predict_all(run_onnx(path), images)
    same = int((ours.argmax(1) == theirs.argmax(1)).sum())
    int8 = write_int8(bundle, path, ROOT / "data", say)
    measured = compare_files(bundle, (path, int8), ROOT / "data", say)
    whole, small = measured.forms["PyTorch, eager"], measured.forms[int8.name]
    rate = small.images_per_s / whole.images_per_s
    sizes = measured.sizes
    return [
        ("ONNX: same top-1 as PyTorch, from PNG bytes", "10,000 of 10,000", f"{same:,}"),
        ("ONNX: largest difference of a probability", "1e-4", f"{abs(ours - theirs).max():.1g}"),
        ("INT8: points of top-1 lost", "0.5", f"{100 * (whole.top1 - small.top1):.2f}"),
        ("INT8: times smaller", "3", f"{sizes[path.name] / sizes[int8.name]:.2f}"),
        ("INT8: images/s against eager, batches of 500", "2", f"{rate:.2f}"),
        ("INT8: one image against eager", "", f"{whole.p50_ms / small.p50_ms:.2f}"),
        ("INT8: same top-1 as PyTorch", "", f"{small.same_top1:,} of {measured.images:,}"),
    ]


def measure_hub(folder: Path) -> Rows:
    """Push with the command, pull with the card's lines, compare; look for the token everywhere."""
    bundle = load_bundle(WEIGHTS)
    _, test = load_split(bundle.provenance, "test", ROOT / "data")
    np.save(folder / "images.npy", test.images.numpy())
    expected = np.concatenate([bundle.logits(part).numpy() for part in test.images.split(500)])
    with HubServer(token=TOKEN) as hub:
        settings = client_environment(hub, folder / "home")
        words = ["-m", "resnet_cifar100", "push", "--repo", "tester/fast", "--space"]
        words += ["--checkpoint-path", str(WEIGHTS), "--data-dir", str(ROOT / "data")]
        output, lines = run(words, folder, settings | {"PYTHONPATH": str(ROOT)})
        pushed = hub.repos[NET].at("main").files
        more, others = run(["-c", PULL], folder, settings)
    written = {
        path.relative_to(folder / "exports/hub/model").as_posix(): path.read_bytes()
        for path in (folder / "exports/hub/model").rglob("*")
        if path.is_file()
    }
    differing = [name for name, content in written.items() if pushed.get(name) != content]
    logits = np.load(folder / "logits.npy")
    places = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    places += [output.encode(), more.encode(), *lines, *others, *pushed.values()]
    hits = sum(TOKEN.encode() in content for content in places)
    return [
        (
            "from_pretrained of what was pushed: logits of 10,000 test images",
            "bitwise equal",
            "bitwise equal" if np.array_equal(logits, expected) else "DIFFERENT",
        ),
        ("Files on the Hub that differ from the folder", "0", str(len(differing))),
        (
            "Planted token: hits in output, logs, files, command lines of all processes",
            "0",
            f"0 of {len(places):,} places" if not hits else f"{hits} HITS",
        ),
    ]


def measure_kills(folder: Path) -> Rows:
    """Kill a push at random moments: the revision before it has to stay, and the next to arrive."""
    words = ["-m", "resnet_cifar100", "push", "--repo", "tester/fast", "--dry-run"]
    words += ["--checkpoint-path", str(WEIGHTS), "--data-dir", str(folder / "none")]
    run(words, folder, os.environ | {"PYTHONPATH": str(ROOT)})
    model = folder / "exports/hub/model"
    killed, whole, old, arrived, moments = 0, 0, 0, 0, random.Random(0)
    with HubServer(token=TOKEN) as hub:
        settings = client_environment(hub, folder / "home") | {"PYTHONPATH": str(ROOT)}
        started = time.monotonic()
        run(["-c", PUSH, str(model)], folder, settings)
        seconds = time.monotonic() - started
        new = hub.repos[NET].at("main").files
        while killed < KILLS:
            hub.objects.clear()
            repo = hub.repos[NET] = Repo()
            before = repo.add("before", {**new, "config.json": b"{}", "model.safetensors": b"old"})
            process = subprocess.Popen([sys.executable, "-c", PUSH, str(model)], env=settings)
            time.sleep(moments.uniform(0.5, 1) * seconds)
            process.kill()
            if process.wait() != -signal.SIGKILL:
                continue  # it had ended by itself
            killed += 1
            old += repo.at("main").sha == before.sha
            whole += repo.at("main").files in (before.files, new)
            run(["-c", PUSH, str(model)], folder, settings)
            arrived += repo.at("main").files == new
    return [
        (
            "Pushes killed with SIGKILL: old or new revision whole",
            f"{KILLS} of {KILLS}",
            f"{whole} of {KILLS}",
        ),
        ("of these, killed before the commit", "", str(old)),
        ("The next push arrives", f"{KILLS} of {KILLS}", f"{arrived} of {KILLS}"),
    ]


PARTS: dict[str, tuple[str, str, Callable[[Path], Rows]]] = {
    "onnx": (
        "ONNX files",
        "The 10,000 test images as PNG files, through the project's own decoder, into PyTorch and "
        "into ONNX Runtime, both in fp32; speeds as in `bench inference`, in turns.",
        measure_onnx,
    ),
    "hub": (
        "The Hub",
        "`push --space` with the real client against a stand-in of the Hub on loopback, then the "
        "lines of the model card in a process that lacks this project.",
        measure_hub,
    ),
    "kills": (
        "Interrupted pushes",
        "SIGKILL at random moments of the second half of a push, in which it uploads.",
        measure_kills,
    ),
    "space": (
        "The Space",
        "The folder that `push --space` writes, its requirements.txt installed in a new virtual "
        "environment, `python app.py`, and the page in Chromium.",
        measure_space,
    ),
    "web": (
        "The page in a browser",
        "`export web`, opened as a file in Chromium. Time to the first answer: medians over five "
        "browsers, and lowest to highest; one test image after another.",
        measure_web,
    ),
}


def main() -> None:
    """Measure, print the tables and write --out after each."""
    parser = argparse.ArgumentParser(description="What is published against what was trained.")
    parser.add_argument("--out", type=Path, required=True, help="folder for the record")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    asked = parser.parse_args()
    keep_freed_memory()  # as the commands do; without it PyTorch is half as fast
    for name in asked.only:
        title, how, measure = PARTS[name]
        with tempfile.TemporaryDirectory() as folder:
            rows = [list(row) for row in measure(Path(folder))]
        keep(Table(name, title, how, HEAD, rows, {}), asked.out)


if __name__ == "__main__":
    main()
