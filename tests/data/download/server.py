"""A small data set in an archive, and a real server on this machine with manners to order."""

import gzip
import hashlib
import io
import random
import tarfile
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event
from typing import NamedTuple

from resnet_cifar100.constants import FOLDER, FileFacts
from resnet_cifar100.data.download import (
    ARCHIVE_NAME,
)

Entry = tuple[tarfile.TarInfo, bytes]


def facts_of(content: bytes) -> FileFacts:
    return FileFacts(len(content), hashlib.sha256(content).hexdigest())


def entry(name: str, content: bytes = b"", **fields: object) -> Entry:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def pack(entries: list[Entry]) -> bytes:
    """A gzipped tar, written by hand so that even entries which lie about themselves get in."""
    raw = io.BytesIO()
    for info, content in entries:
        raw.write(info.tobuf(tarfile.GNU_FORMAT))
        raw.write(content + bytes(-len(content) % 512))
    return gzip.compress(raw.getvalue() + bytes(1024), compresslevel=1, mtime=0)


_noise = random.Random(0)
CONTENTS = {
    "train": _noise.randbytes(600_000),
    "test": _noise.randbytes(100_000),
    "meta": _noise.randbytes(700),
}
MEMBERS = {name: facts_of(content) for name, content in CONTENTS.items()}
GOOD = [entry(f"{FOLDER}/{name}", content) for name, content in CONTENTS.items()]
DATA = pack([entry(FOLDER, type=tarfile.DIRTYPE), *GOOD])
FACTS = facts_of(DATA)


class Exchange(NamedTuple):
    """One request as the server saw it."""

    path: str
    range_header: str | None


Act = Callable[["Handler"], None]


class Server(ThreadingHTTPServer):
    """Plays one act of `script` for each request; when it is used up, behaves well."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script: list[Act] = []
        self.exchanges: list[Exchange] = []
        self.is_closing = Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/{ARCHIVE_NAME}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up are part of the game."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.exchanges.append(Exchange(self.path, self.headers["Range"]))
        act = self.server.script.pop(0) if self.server.script else honest
        act(self)

    def log_message(self, *args: object) -> None:
        """Say nothing."""

    def begin(self, status: int, **headers: object) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def offset(self) -> int:
        return int((self.headers["Range"] or "bytes=0-")[len("bytes=") : -1])


def honest(handler: Handler) -> None:
    if not (start := handler.offset()):
        return whole(handler)
    if start >= len(DATA):
        return handler.begin(416, Content_Range=f"bytes */{len(DATA)}")
    span = f"bytes {start}-{len(DATA) - 1}/{len(DATA)}"
    handler.begin(206, Content_Length=len(DATA) - start, Content_Range=span)
    handler.wfile.write(DATA[start:])
    return None


def whole(handler: Handler) -> None:
    handler.begin(200, Content_Length=len(DATA))
    handler.wfile.write(DATA)


def drop_half_way(handler: Handler) -> None:
    handler.begin(200, Content_Length=len(DATA))
    handler.wfile.write(DATA[: len(DATA) // 2])


def hang(handler: Handler) -> None:
    handler.server.is_closing.wait(10)


def hang_half_way(handler: Handler) -> None:
    drop_half_way(handler)
    hang(handler)


def crawl(handler: Handler) -> None:
    handler.begin(200, Content_Length=len(DATA))
    for start in range(0, len(DATA), 20_000):
        handler.wfile.write(DATA[start : start + 20_000])
        time.sleep(0.02)


def wrong_range(handler: Handler) -> None:
    handler.begin(206, Content_Range=f"bytes 7-{len(DATA) - 1}/{len(DATA)}")
    handler.wfile.write(DATA[7:])


def status(code: int) -> Act:
    return lambda handler: handler.begin(code, Content_Length=0)


def redirect(url: str) -> Act:
    return lambda handler: handler.begin(302, Location=url, Content_Length=0)


def sends(content: bytes, *, is_announced: bool = True) -> Act:
    def act(handler: Handler) -> None:
        handler.begin(200, **({"Content_Length": len(content)} if is_announced else {}))
        handler.wfile.write(content)

    return act


def spoiled(content: bytes) -> bytes:
    return content[:1000] + bytes([content[1000] ^ 1]) + content[1001:]
