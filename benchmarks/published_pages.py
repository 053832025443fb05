"""Published pages in a real browser: the Space in a fresh environment, and the one-file page."""

import io
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

from resnet_cifar100.bundle import load_bundle
from resnet_cifar100.cli.screen import say
from resnet_cifar100.config import SHIPPED_MODEL
from resnet_cifar100.data.drawings import write_drawings
from resnet_cifar100.engine.evaluate import load_split
from resnet_cifar100.export.files import write_small
from resnet_cifar100.export.forms import eager, predict_all, run_onnx
from resnet_cifar100.export.onnx import save_onnx

ROOT = Path(__file__).resolve().parents[1]
WEIGHTS = ROOT / SHIPPED_MODEL
WEB_IMAGES = 1000
Rows = list[tuple[str, str, str]]


def run(words: list[str], folder: Path, settings: Mapping[str, str]) -> tuple[str, set[bytes]]:
    """Run a process to its end; return its output, and the command lines seen meanwhile."""
    with (folder / "output.txt").open("w") as output:
        process = subprocess.Popen(
            [sys.executable, *words],
            cwd=folder,
            env=dict(settings),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        lines: set[bytes] = set()
        while process.poll() is None:
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    lines.add(path.read_bytes())
                except OSError:
                    continue  # it has ended
            time.sleep(0.05)
    text = (folder / "output.txt").read_text()
    if process.returncode:
        raise SystemExit(f"{words} ended with {process.returncode}: {text}")
    return text, lines


def measure_space(folder: Path) -> Rows:
    """Install the Space alone in a fresh environment, and ask its page in Chromium."""
    words = ["-m", "resnet_cifar100", "push", "--repo", "tester/fast", "--dry-run", "--space"]
    words += ["--checkpoint-path", str(WEIGHTS), "--data-dir", str(folder / "none")]
    run(words, folder, os.environ | {"PYTHONPATH": str(ROOT)})
    space = Path(shutil.move(folder / "exports/hub/space", folder / "space"))
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv/bin/python"
    pip = [str(python), "-m", "pip", "install", "-q", "-r", "requirements.txt"]
    subprocess.run(pip, cwd=space, check=True, capture_output=True)
    listed = subprocess.run(
        [str(python), "-m", "pip", "list", "--format=json"], check=True, capture_output=True
    )
    packages = {one["name"] for one in json.loads(listed.stdout)}
    (picture,) = [path for path in write_drawings(folder) if "orange" in path.name]
    started = time.monotonic()
    settings = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    process = subprocess.Popen(
        [str(python), "app.py", "--port", "0"],
        cwd=space,
        env=settings,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().split()[0]
        seconds = time.monotonic() - started
        answer = in_chromium(lambda page: _ask_space(page, url, picture))
    finally:
        process.terminate()
        process.wait()
    return [
        ("Space, installed alone: torch among its packages", "no", _has(packages, "torch")),
        ("Space: packages installed", "", str(len(packages))),
        ("Space: seconds to start", "", f"{seconds:.1f}"),
        ("Space: what it answers in Chromium to a drawn orange", "orange", answer),
    ]


def _has(packages: set[str], name: str) -> str:
    return "YES" if any(name in package for package in packages) else "no"


def _ask_space(page: Page, url: str, picture: Path) -> str:
    page.goto(url)
    page.locator("input[type=file]").first.set_input_files(picture)
    return page.locator(".answer h2").inner_text(timeout=30_000)


def measure_web(folder: Path) -> Rows:
    """Drive the one-file page: size, first answer, and 1,000 test images against `evaluate`'s."""
    words = ["-m", "resnet_cifar100", "export", "web", "--data-dir", str(ROOT / "data")]
    words += ["--checkpoint-path", str(WEIGHTS)]
    output, _ = run(words, folder, os.environ | {"PYTHONPATH": str(ROOT)})
    html = folder / "exports/web/index.html"
    own = re.search(r"the network is ([\d.]+)", output)
    assert own is not None
    bundle = load_bundle(WEIGHTS)
    _, test = load_split(bundle.provenance, "test", ROOT / "data")
    images = test.images[:WEB_IMAGES].numpy()
    save_onnx(bundle, folder / "model.onnx")
    small = write_small(bundle, folder / "model.onnx", ROOT / "data", say)
    files = []
    for index, image in enumerate(images):
        files.append(folder / f"{index:04}.png")
        files[-1].write_bytes(png(image))
    first = [in_chromium(lambda page: _first_answer(page, html, files[0])) for _ in range(5)]
    labels = np.array(in_chromium(lambda page: _labels(page, html, files)))
    evaluated = predict_all(run_onnx(small), images).argmax(1)
    whole = predict_all(eager(bundle), images).argmax(1)
    truth = test.labels[:WEB_IMAGES].numpy()
    hits, server_hits = (f"{(each == truth).mean():.1%}" for each in (labels, whole))
    return [
        ("Page: MB, all in one file", "", f"{html.stat().st_size / 1e6:.1f}"),
        ("Page: MB of the network", "under 8", own[1]),
        (
            "Page: seconds to the first answer, from opening the file",
            "under 3",
            f"{statistics.median(first):.2f} ({min(first):.2f} to {max(first):.2f})",
        ),
        (
            f"Page: same class as evaluate of the whole network, {WEB_IMAGES:,} test images",
            "99.5%",
            f"{(labels == whole).mean():.2%}",
        ),
        ("Page: same class as evaluate of its own file", "", f"{(labels == evaluated).mean():.2%}"),
        ("Page: top-1 on them, beside PyTorch's", "", f"{hits}, {server_hits}"),
    ]


def _first_answer(page: Page, html: Path, picture: Path) -> float:
    started = time.monotonic()
    page.goto(html.as_uri())
    page.set_input_files("#files", picture)
    expect(page.locator("#answer")).to_have_attribute("data-label", re.compile(r"\d+"))
    return time.monotonic() - started


def _labels(page: Page, html: Path, pictures: list[Path]) -> list[int]:
    page.goto(html.as_uri())
    labels = []
    for count, picture in enumerate(pictures, start=1):
        page.set_input_files("#files", picture)
        expect(page.locator("#history li")).to_have_count(count)
        labels.append(int(page.locator("#answer").get_attribute("data-label") or -1))
    return labels


def in_chromium(ask: Callable[[Page], Any]) -> Any:  # noqa: ANN401
    """Return what `ask` finds in a fresh Chromium."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        try:
            return ask(browser.new_page())
        finally:
            browser.close()


def png(image: np.ndarray) -> bytes:
    """Return an image (3,H,W) uint8 as the content of a PNG file."""
    content = io.BytesIO()
    Image.fromarray(image.transpose(1, 2, 0)).save(content, "PNG")
    return content.getvalue()
