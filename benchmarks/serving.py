"""The web app under load and under attack, over HTTP on this machine.

    python -m benchmarks.serving [--only known load hostile] [--minutes 5] [--out FOLDER]

known:   the 10,000 test images as PNG files, one after another: latency, accuracy of the app.
load:    32 clients at once, one request in ten hostile; every reply compared with the lone reply.
hostile: bombs, every prefix of 6 files, 20,000 damaged files, 300 paths to files of the server.
"""

import argparse
import asyncio
import contextlib
import io
import json
import random
import secrets
import socket
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

from benchmarks.live_app import Server, serve
from benchmarks.page import Table, keep
from resnet_cifar100.config import Config
from resnet_cifar100.data.cifar100 import Dataset, load_dataset
from tests.data.images.pictures import RGB, encode
from tests.data.images.test_bombs import BOMBS
from tests.serve.test_gate import traversals

CLIENTS, HOSTILE_SHARE = 32, 0.1
GRADIO_CLIENTS = 4  # of them, those who go through the page's own interface
CLASSIFY = 2  # the number of the page's function of that name
SAME = 2e-4  # a probability is rounded to 4 digits, and a batch rounds differently


def known(server: Server, dataset: Dataset, _asked: argparse.Namespace) -> Table:
    """Ask about each test image alone, as a PNG file."""
    replies, seconds = [], []
    with httpx.Client(base_url=server.url) as client:
        for png in pngs(dataset):
            start = time.perf_counter()
            replies.append(client.post("/classify", content=png).raise_for_status().json())
            seconds.append(time.perf_counter() - start)
    right = [
        dataset.fine_names[label] == reply["class"]
        for reply, label in zip(replies, dataset.test.labels.tolist(), strict=True)
    ]
    sure = np.array([reply["sure"] for reply in replies])
    right_array, milliseconds = np.array(right), 1000 * np.array(seconds)
    p50, p99 = np.percentile(milliseconds, [50, 99])
    rows = [
        ["top-1 of the app's own path", f"{right_array.mean():.2%}"],
        ["pictures it is sure of", f"{sure.mean():.2%}"],
        ["right, of those", f"{right_array[sure].mean():.2%}"],
        ["right, of the others (their nearest class)", f"{right_array[~sure].mean():.2%}"],
        ["latency of a request, p50", f"{p50:.1f} ms"],
        ["latency of a request, p99", f"{p99:.1f} ms"],
    ]
    return Table(
        name="known",
        title="The test set through the app",
        how=f"The {len(right):,} images of the {dataset.title} test set as PNG files, each a "
        "`POST /classify` of its own, one after another.",
        head=["What", "Figure"],
        rows=rows,
        samples={"milliseconds": milliseconds.round(2).tolist(), "top1": right_array.mean()},
    )


@dataclass
class Tally:
    """What the clients of the load saw."""

    good: list[float] = field(default_factory=list)
    differing: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    hostile: Counter[int] = field(default_factory=Counter)
    memory: list[tuple[float, float]] = field(default_factory=list)
    most_uploads: int = 0


def load(server: Server, dataset: Dataset, asked: argparse.Namespace) -> Table:
    """Run the clients, then read the tally."""
    before = server.uploads()
    pictures = list(pngs(dataset))
    with httpx.Client(base_url=server.url) as client:
        alone = [client.post("/classify", content=png).json() for png in pictures]
    tally = asyncio.run(_run_clients(server, pictures, alone, 60 * asked.minutes))
    late = np.array([one for one in tally.memory if one[0] >= 60 * min(1, asked.minutes / 2)])
    slope = np.polyfit(late[:, 0] / 60, late[:, 1], 1)[0]
    p50, p99 = np.percentile(1000 * np.array(tally.good), [50, 99])
    hostile = ", ".join(f"{n:,} x {status}" for status, n in sorted(tally.hostile.items()))
    time.sleep(120)
    rows = [
        ["good requests answered", f"{len(tally.good):,}"],
        ["a second", f"{len(tally.good) / (60 * asked.minutes):.0f}"],
        ["errors on good requests", f"{sum(tally.failed.values())} {dict(tally.failed) or ''}"],
        ["replies that differ from the lone reply", str(tally.differing)],
        ["latency p50, p99, most", f"{p50:.0f}, {p99:.0f}, {1000 * max(tally.good):.0f} ms"],
        ["replies to hostile requests, by status", hostile],
        ["memory at the end", f"{late[-1, 1]:.0f} MiB"],
        ["its slope after the first minute", f"{slope:+.2f} MiB a minute"],
        [
            "files on the disk before, at most, and two minutes later",
            f"{before}, {tally.most_uploads}, {server.uploads()}",
        ],
        ["tracebacks in the log", str(server.tracebacks())],
    ]
    return Table(
        name="load",
        title="Load",
        how=f"{CLIENTS} clients for {asked.minutes:g} minutes, each with its next request as soon "
        f"as it has its reply; {GRADIO_CLIENTS} of them use the page's interface (upload, call, "
        f"wait), the others `POST /classify`. {HOSTILE_SHARE:.0%} of the requests are hostile. "
        f"{len(pictures):,} different pictures in turn, so the memory of earlier answers never "
        "helps. Server and clients share this machine.",
        head=["What", "Figure"],
        rows=rows,
        samples={"memory_mib": tally.memory, "milliseconds_p": [p50, p99]},
    )


async def _run_clients(
    server: Server, pictures: list[bytes], alone: list[dict[str, Any]], seconds: float
) -> Tally:
    tally, order, rng = Tally(), iter(range(10**9)), random.Random(0)
    bombs = [build() for build, _ in BOMBS.values()]
    start = time.perf_counter()

    async def one(client: httpx.AsyncClient, by_gradio: bool) -> None:
        while time.perf_counter() - start < seconds:
            if rng.random() < HOSTILE_SHARE:
                tally.hostile[await _attack(client, rng, bombs, pictures)] += 1
                continue
            index = next(order) % len(pictures)
            begun = time.perf_counter()
            try:
                ask = _by_gradio if by_gradio else _by_post
                reply = await ask(client, pictures[index])
            except (httpx.HTTPError, KeyError, ValueError, IndexError) as error:
                tally.failed[f"{type(error).__name__}: {error}"[:80]] += 1
                continue
            tally.good.append(time.perf_counter() - begun)
            tally.differing += not _is_same(reply, alone[index])

    async def watch() -> None:
        while (passed := time.perf_counter() - start) < seconds:
            tally.memory.append((round(passed, 1), server.status_mib("VmRSS")))
            tally.most_uploads = max(tally.most_uploads, server.uploads())
            await asyncio.sleep(2)

    async with contextlib.AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(httpx.AsyncClient(base_url=server.url, timeout=60))
            for _ in range(CLIENTS)
        ]
        runs = [one(client, number < GRADIO_CLIENTS) for number, client in enumerate(clients)]
        await asyncio.gather(watch(), *runs)
    return tally


async def _by_post(client: httpx.AsyncClient, picture: bytes) -> dict[str, Any]:
    reply = await client.post("/classify", content=picture)
    return dict(reply.raise_for_status().json())


async def _by_gradio(client: httpx.AsyncClient, picture: bytes) -> dict[str, Any]:
    """Ask as gradio_client does: upload, join, listen."""
    sent = await client.post("/gradio_api/upload", files={"files": ("a.png", picture)})
    file = {"path": sent.raise_for_status().json()[0], "meta": {"_type": "gradio.FileData"}}
    session = secrets.token_hex(8)
    call = {"data": [file], "fn_index": CLASSIFY, "session_hash": session}
    (await client.post("/gradio_api/queue/join", json=call)).raise_for_status()
    stream = await client.get("/gradio_api/queue/data", params={"session_hash": session})
    message = json.loads(stream.text.split("\n")[0].removeprefix("data: "))
    return dict(message["output"]["data"][0])


async def _attack(
    client: httpx.AsyncClient, rng: random.Random, bombs: list[bytes], pictures: list[bytes]
) -> int:
    """Send one hostile request; return the status of its reply, 0 for a closed connection."""
    kind = rng.randrange(5)
    contents = [rng.choice(bombs), damaged(rng.choice(pictures), rng), bytes(6_000_000)]
    call = {"data": [{"path": "/etc/passwd"}], "fn_index": CLASSIFY, "session_hash": "x"}
    try:
        if kind == 3:
            paths = traversals(Path("/tmp"))
            return await asyncio.to_thread(status_of, str(client.base_url), rng.choice(paths))
        if kind == 4:
            return (await client.post("/gradio_api/queue/join", json=call)).status_code
        return (await client.post("/classify", content=contents[kind])).status_code
    except (httpx.TransportError, OSError, IndexError):
        return 0


def status_of(url: str, path: str) -> int:
    """Ask for a path as it is (httpx would tidy it); return the status of the reply."""
    address = httpx.URL(url)
    line = "".join(char if char.isprintable() else f"%{ord(char):02x}" for char in path)
    request = f"GET {line} HTTP/1.1\r\nHost: {address.host}\r\nConnection: close\r\n\r\n"
    with socket.create_connection((address.host, address.port or 80), timeout=60) as connection:
        connection.sendall(request.encode())
        return int(connection.recv(4096).split()[1])


def hostile(server: Server, dataset: Dataset, _asked: argparse.Namespace) -> Table:
    """Send what has been made to break servers, one after another."""
    rng, rows = random.Random(0), []
    files = [encode(RGB, kind) for kind in ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")]
    attacks = {
        "every prefix of 6 files": [file[:n] for file in files for n in range(len(file))],
        "20,000 damaged files": [damaged(rng.choice(files), rng) for _ in range(20_000)],
    }
    with httpx.Client(base_url=server.url, timeout=60) as client:
        for file in files:
            client.post("/classify", content=file).raise_for_status()
        costs = {}
        for name, (build, _) in BOMBS.items():
            content = build()
            server.forget_peak()
            before, start = server.status_mib("VmRSS"), time.perf_counter()
            status = client.post("/classify", content=content).status_code
            taken = time.perf_counter() - start
            costs[name] = status, taken, server.status_mib("VmHWM") - before
        slowest, largest = (max(cost[i] for cost in costs.values()) for i in (1, 2))
        statuses = dict(Counter(status for status, _, _ in costs.values()))
        worst = f"slowest {1000 * slowest:.0f} ms, most memory {largest:.0f} MiB"
        rows.append([f"{len(BOMBS)} bombs", f"{statuses}; {worst}"])
        for name, contents in attacks.items():
            replies = Counter(client.post("/classify", content=c).status_code for c in contents)
            rows.append([f"{name} ({len(contents):,})", str(dict(replies))])
        paths = traversals(server.temporary)
        replies = Counter(status_of(server.url, path) for path in paths)
        rows.append([f"{len(paths)} paths to files of the server", str(dict(replies))])
    rows.append(["tracebacks in the log", str(server.tracebacks())])
    how = (
        "Each a `POST /classify` (the paths: a GET), replies counted by status: 200 is an answer, "
    )
    how += "422 a refusal in one sentence. Memory is the server's peak above its use before the "
    how += "request."
    return Table("hostile", "Attack", how, ["What", "Replies"], rows, {"bombs": costs})


def pngs(dataset: Dataset) -> Iterator[bytes]:
    """Yield the test images as PNG files."""
    for image in dataset.test.images.permute(0, 2, 3, 1).numpy():
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "PNG")
        yield buffer.getvalue()


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Return the file with up to ten bytes changed."""
    changed = bytearray(content)
    for _ in range(rng.randint(1, 10)):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def _is_same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    pairs = zip(one["classes"], other["classes"], strict=True)
    return all(abs(a["probability"] - b["probability"]) <= SAME for a, b in pairs) and (
        one["class"] == other["class"] or one["classes"][0]["probability"] < 0.5
    )


MAKERS = {"known": known, "load": load, "hostile": hostile}


def main() -> None:
    """Make the tables that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=list(MAKERS), default=list(MAKERS))
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    dataset = load_dataset(Config(dataset="auto"))
    for name in asked.only:
        with serve() as server:
            table = MAKERS[name](server, dataset, asked)
        keep(table, asked.out)


if __name__ == "__main__":
    main()
