"""The web app in a process of its own, and what it costs there."""

import contextlib
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from resnet_cifar100.cli.screen import say


@dataclass
class Server:
    """The app in a process of its own."""

    process: subprocess.Popen[str]
    url: str
    log: Path
    temporary: Path

    def status_mib(self, key: str) -> float:
        """Return VmRSS or VmHWM (the most since `forget_peak`)."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(text.split(f"{key}:")[1].split()[0]) / 1024

    def forget_peak(self) -> None:
        """Begin VmHWM anew."""
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def uploads(self) -> int:
        """Return how many uploaded files lie on the disk."""
        return sum(len(files) for _, _, files in os.walk(self.temporary))

    def tracebacks(self) -> int:
        """Return how many tracebacks are in the log."""
        return self.log.read_text().count("Traceback")


@contextlib.contextmanager
def serve() -> Iterator[Server]:
    """Start the app on a free port."""
    with tempfile.TemporaryDirectory() as folder:
        log, temporary = Path(folder) / "log", Path(folder) / "tmp"
        temporary.mkdir()
        started = time.perf_counter()
        with log.open("w") as errors:
            process = subprocess.Popen(
                [sys.executable, "huggingface_app/app.py", "--port", "0"],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={"PATH": "/usr/bin:/bin", "TMPDIR": str(temporary)},
            )
        assert process.stdout
        try:
            url = next(m[0] for line in process.stdout if (m := re.search(r"http://[\d.:]+", line)))
            httpx.get(f"{url}/health", timeout=60).raise_for_status()
            say(f"started in {time.perf_counter() - started:.1f} s")
            yield Server(process, url, log, temporary)
        finally:
            process.terminate()
            process.wait()
