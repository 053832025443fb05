"""The downloader against a real server that misbehaves on order, and against hostile archives."""

import gzip
import hashlib
import io
import json
import random
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import NamedTuple
from urllib.request import Request

import pytest

from resnet_cifar100.constants import ARCHIVE, ARCHIVE_URL, FOLDER, FileFacts
from resnet_cifar100.data import download
from resnet_cifar100.data.download import (
    ARCHIVE_NAME,
    download_cifar100,
    how_to_get_it,
    verify_file,
)
from resnet_cifar100.errors import DataError

Entry = tuple[tarfile.TarInfo, bytes]


# ------------------------------------------------------------------ a small data set to serve


def facts_of(content: bytes) -> FileFacts:
    return FileFacts(
        len(content), hashlib.md5(content).hexdigest(), hashlib.sha256(content).hexdigest()
    )


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


# ------------------------------------------------------------------ a server with bad manners


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

    def do_GET(self) -> None:  # noqa: N802 - named by http.server
        self.server.exchanges.append(Exchange(self.path, self.headers["Range"]))
        act = self.server.script.pop(0) if self.server.script else honest
        act(self)

    def log_message(self, format: str, *args: object) -> None:
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


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.is_closing.set()
        server.shutdown()


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "BACKOFF_S", (0.0, 0.0, 0.0))
    monkeypatch.setattr(download, "CHUNK", 4096)
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "some" / "data"


def obtain(data_dir: Path, url: str, archive: FileFacts = FACTS) -> Path:
    return download_cifar100(data_dir, url, archive=archive, members=MEMBERS)


def refusal(data_dir: Path, url: str, archive: FileFacts = FACTS) -> str:
    """The message of the DataError, which has to end with the advice; no wrong file may stand."""
    with pytest.raises(DataError) as caught:
        obtain(data_dir, url, archive)
    assert str(caught.value).endswith("\n" + how_to_get_it(data_dir, url))
    assert all(verify_file(path, MEMBERS[path.name]) for path in data_dir.glob(f"{FOLDER}/*"))
    return str(caught.value)


def assert_complete(data_dir: Path) -> None:
    """Exactly the three right files are there, nothing half-done and no archive."""
    assert {path.name for path in data_dir.iterdir()} == {FOLDER}
    assert {path.name: path.read_bytes() for path in (data_dir / FOLDER).iterdir()} == CONTENTS


def write_part(data_dir: Path, content: bytes) -> Path:
    data_dir.mkdir(parents=True, exist_ok=True)
    part = data_dir / f"{ARCHIVE_NAME}.part"
    part.write_bytes(content)
    return part


def resumed_at(offset: int) -> str:
    return f"bytes={offset}-"


# ------------------------------------------------------------------ checksums and advice


def test_a_file_is_verified_only_if_size_md5_and_sha256_all_agree(tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert not verify_file(path, FACTS)
    assert not verify_file(tmp_path, FACTS)
    path.write_bytes(DATA)
    assert verify_file(path, FACTS)
    assert not verify_file(path, FACTS._replace(size=len(DATA) + 1))
    assert not verify_file(path, FACTS._replace(md5="0" * 32))
    assert not verify_file(path, FACTS._replace(sha256="0" * 64))


def test_the_advice_names_address_path_checksum_mirror_flag_and_synthetic_data() -> None:
    advice = how_to_get_it(Path("some/data"), "https://mirror.example/x.tar.gz")
    path = str(Path("some/data") / ARCHIVE_NAME)
    for fact in ("https://mirror.example/x.tar.gz", path, ARCHIVE.sha256, ARCHIVE_URL):
        assert fact in advice
    assert "--data-url" in advice
    assert "--dataset synthetic" in advice


# ------------------------------------------------------------------ the network at its best


def test_a_download_ends_with_exactly_the_three_files(server: Server, data_dir: Path) -> None:
    assert obtain(data_dir, server.url) == data_dir / FOLDER
    assert_complete(data_dir)


def test_files_that_are_there_already_cost_no_request(server: Server, data_dir: Path) -> None:
    obtain(data_dir, server.url)
    server.exchanges.clear()
    obtain(data_dir, server.url)
    assert server.exchanges == []


def test_a_damaged_file_is_replaced(server: Server, data_dir: Path) -> None:
    folder = obtain(data_dir, server.url)
    (folder / "train").write_bytes(spoiled(CONTENTS["train"]))
    obtain(data_dir, server.url)
    assert_complete(data_dir)


def test_without_a_terminal_there_is_a_line_at_the_start_and_one_each_tenth(
    server: Server, data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    obtain(data_dir, server.url)
    out, err = capsys.readouterr()
    first, *others = err.splitlines()
    assert out == ""
    assert server.url in first
    assert [line.split()[0] for line in others] == [f"{tenth}0%" for tenth in range(1, 11)]


def test_on_a_terminal_there_is_a_bar_with_speed(
    server: Server,
    data_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    server.script = [crawl]
    obtain(data_dir, server.url)
    err = capsys.readouterr().err
    assert "CIFAR-100" in err
    assert "B/s" in err
    assert "10% of" not in err


# ------------------------------------------------------------------ an archive put there by hand


def test_an_archive_put_there_by_hand_is_used_and_kept(server: Server, data_dir: Path) -> None:
    write_part(data_dir, b"left over").rename(data_dir / ARCHIVE_NAME)
    (data_dir / ARCHIVE_NAME).write_bytes(DATA)
    obtain(data_dir, server.url)
    assert server.exchanges == []
    assert (data_dir / ARCHIVE_NAME).read_bytes() == DATA
    (data_dir / ARCHIVE_NAME).unlink()
    assert_complete(data_dir)


def test_no_flipped_bit_in_an_archive_put_there_by_hand_goes_unseen(data_dir: Path) -> None:
    data_dir.mkdir(parents=True)
    noise = random.Random(1)
    for _ in range(200):
        flipped = bytearray(DATA)
        flipped[noise.randrange(len(DATA))] ^= 1 << noise.randrange(8)
        (data_dir / ARCHIVE_NAME).write_bytes(flipped)
        assert ARCHIVE_NAME in refusal(data_dir, "http://unused.invalid/").splitlines()[0]
        assert not (data_dir / FOLDER).exists()


# ------------------------------------------------------------------ the network at its worst


def test_after_a_dropped_connection_only_the_missing_bytes_are_fetched(
    server: Server, data_dir: Path
) -> None:
    server.script = [drop_half_way]
    obtain(data_dir, server.url)
    assert [e.range_header for e in server.exchanges] == [None, resumed_at(len(DATA) // 2)]
    assert_complete(data_dir)


def test_a_partial_file_of_an_earlier_run_is_resumed(server: Server, data_dir: Path) -> None:
    write_part(data_dir, DATA[:12_345])
    obtain(data_dir, server.url)
    assert [e.range_header for e in server.exchanges] == [resumed_at(12_345)]
    assert_complete(data_dir)


def test_a_server_that_ignores_ranges_is_read_from_the_start(
    server: Server, data_dir: Path
) -> None:
    write_part(data_dir, DATA[:12_345])
    server.script = [whole]
    obtain(data_dir, server.url)
    assert len(server.exchanges) == 1
    assert_complete(data_dir)


def test_a_range_that_was_not_asked_for_is_thrown_away(server: Server, data_dir: Path) -> None:
    write_part(data_dir, DATA[:12_345])
    server.script = [wrong_range]
    obtain(data_dir, server.url)
    assert [e.range_header for e in server.exchanges] == [resumed_at(12_345), None]
    assert_complete(data_dir)


def test_a_range_that_cannot_be_satisfied_means_a_new_start(server: Server, data_dir: Path) -> None:
    write_part(data_dir, DATA[:12_345])
    server.script = [status(416)]
    obtain(data_dir, server.url)
    assert [e.range_header for e in server.exchanges] == [resumed_at(12_345), None]
    assert_complete(data_dir)


def test_a_partial_file_that_is_too_long_is_thrown_away(server: Server, data_dir: Path) -> None:
    write_part(data_dir, DATA + b"more")
    obtain(data_dir, server.url)
    assert [e.range_header for e in server.exchanges] == [None]
    assert_complete(data_dir)


def test_a_complete_partial_file_needs_no_request(server: Server, data_dir: Path) -> None:
    write_part(data_dir, DATA)
    obtain(data_dir, server.url)
    assert server.exchanges == []
    assert_complete(data_dir)


def test_a_resumed_file_with_a_wrong_checksum_is_fetched_once_more(
    server: Server, data_dir: Path
) -> None:
    write_part(data_dir, spoiled(DATA)[:12_345])
    obtain(data_dir, server.url)
    assert [e.range_header for e in server.exchanges] == [resumed_at(12_345), None]
    assert_complete(data_dir)


def test_wrong_bytes_are_refused_after_a_second_look_and_not_kept(
    server: Server, data_dir: Path
) -> None:
    server.script = [sends(spoiled(DATA))] * 9
    assert "checksums differ" in refusal(data_dir, server.url)
    assert len(server.exchanges) == 2
    assert list(data_dir.iterdir()) == []


@pytest.mark.parametrize("code", [408, 429, 500, 503])
def test_a_server_that_is_busy_twice_is_asked_again(
    server: Server, data_dir: Path, code: int
) -> None:
    server.script = [status(code), status(code)]
    obtain(data_dir, server.url)
    assert_complete(data_dir)


def test_a_server_that_stays_broken_is_given_up_after_four_tries(
    server: Server, data_dir: Path
) -> None:
    server.script = [status(500)] * 9
    assert "500" in refusal(data_dir, server.url)
    assert len(server.exchanges) == 4


@pytest.mark.parametrize("code", [401, 403, 404, 410])
def test_a_plain_refusal_is_not_asked_again(server: Server, data_dir: Path, code: int) -> None:
    server.script = [status(code)] * 9
    assert str(code) in refusal(data_dir, server.url)
    assert len(server.exchanges) == 1


def test_a_silent_server_is_left_and_asked_again(
    server: Server, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "TIMEOUT_S", 0.3)
    server.script = [hang, hang_half_way]
    obtain(data_dir, server.url)
    *first, last = [e.range_header for e in server.exchanges]
    assert first == [None, None]
    assert last is not None
    assert_complete(data_dir)


def test_a_file_of_another_size_is_refused_and_what_is_here_is_kept(
    server: Server, data_dir: Path
) -> None:
    part = write_part(data_dir, DATA[:12_345])
    server.script = [sends(b"<html>Please log in to this network</html>")]
    assert "official archive" in refusal(data_dir, server.url)
    assert part.read_bytes() == DATA[:12_345]


def test_a_server_that_does_not_stop_is_stopped(server: Server, data_dir: Path) -> None:
    sent: list[int] = []

    def gush(handler: Handler) -> None:
        handler.begin(200)
        while sum(sent) < 100_000_000:
            sent.append(handler.wfile.write(bytes(100_000)))

    server.script = [gush]
    assert "more than" in refusal(data_dir, server.url)
    assert list(data_dir.iterdir()) == []
    assert sum(sent) < 50_000_000  # a few megabytes may wait in the buffers of the system


def test_a_server_that_says_no_length_is_believed_by_checksum(
    server: Server, data_dir: Path
) -> None:
    server.script = [sends(DATA, is_announced=False)]
    obtain(data_dir, server.url)
    assert_complete(data_dir)


def test_a_refused_connection_ends_in_one_message(data_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert "refused" in refusal(data_dir, f"http://127.0.0.1:{port}/x")
    assert sum((1.0, 2.0, 4.0)) < 10


def test_something_that_does_not_speak_http_ends_in_one_message(data_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def babble() -> None:
            for _ in range(4):
                connection, _ = listener.accept()
                with connection:
                    connection.recv(4096)
                    connection.sendall(b"220 ready when you are\r\n")

        Thread(target=babble, daemon=True).start()
        assert "no answer" in refusal(data_dir, f"http://127.0.0.1:{listener.getsockname()[1]}/x")


@pytest.mark.parametrize(("slow_lookup_s", "tries"), [(1.0, 4), (-1.0, 1)])
def test_an_unknown_host_is_looked_up_again_only_if_that_is_quick(
    data_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    slow_lookup_s: float,
    tries: int,
) -> None:
    def unknown(*args: object, **kwargs: object) -> None:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    monkeypatch.setattr(download, "SLOW_LOOKUP_S", slow_lookup_s)
    assert "name resolution" in refusal(data_dir, "http://nowhere.invalid/x")
    assert capsys.readouterr().err.count("Next try") == tries - 1


# ------------------------------------------------------------------ addresses and redirects


@pytest.mark.parametrize(
    "url",
    ["file:///etc/passwd", "ftp://host/x", "data:,x", "/etc/passwd", "host/x", "", "https:"],
)
def test_only_http_and_https_addresses_are_accepted(data_dir: Path, url: str) -> None:
    assert "only ['http', 'https'] will do" in refusal(data_dir, url)


@pytest.mark.parametrize(
    "url", ["http://[::1", "http://h:port/", "http://h/a b", "http://h/a\nb", "http://h/\u00e9"]
)
def test_an_address_that_makes_no_sense_ends_in_one_message(data_dir: Path, url: str) -> None:
    assert "not a usable address" in refusal(data_dir, url)


def test_a_redirect_within_http_is_followed_and_keeps_the_range(
    server: Server, data_dir: Path
) -> None:
    write_part(data_dir, DATA[:12_345])
    server.script = [redirect("/elsewhere")]
    obtain(data_dir, server.url)
    assert server.exchanges[1] == Exchange("/elsewhere", resumed_at(12_345))
    assert_complete(data_dir)


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "data:,x"])
def test_a_redirect_to_another_scheme_is_refused(
    server: Server, data_dir: Path, target: str
) -> None:
    server.script = [redirect(target)]
    refusal(data_dir, server.url)
    assert len(server.exchanges) == 1


@pytest.mark.parametrize("target", ["http://h/x", "HTTP://h/x", "ftp://h/x", "file:///x"])
def test_a_redirect_from_https_to_anything_less_is_refused(target: str) -> None:
    handler, request = download._SafeRedirects(), Request("HTTPS://secure.example/x")
    with pytest.raises(DataError, match="refused"):
        handler.redirect_request(request, io.BytesIO(), 302, "Found", {}, target)


def test_a_redirect_from_http_to_https_is_welcome() -> None:
    handler, request = download._SafeRedirects(), Request("http://plain.example/x")
    better = handler.redirect_request(request, io.BytesIO(), 302, "Found", {}, "https://h/x")
    assert better is not None
    assert better.full_url == "https://h/x"


@pytest.fixture
def secure_server(server: Server, tmp_path: Path) -> Server:
    """The same server behind TLS, with a certificate nobody trusts yet (tmp_path/cert.pem)."""
    if not (openssl := shutil.which("openssl")):
        pytest.skip("needs the openssl command to make a certificate")
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
        + ["-nodes", "-keyout", key, "-out", cert, "-days", "2", "-subj", "/CN=localhost"]
        + ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    return server


def test_a_real_https_server_cannot_send_us_to_http(
    secure_server: Server, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    secure_url = secure_server.url.replace("http:", "https:")
    secure_server.script = [redirect("http://127.0.0.1:9/x")]
    assert "only ['https'] will do" in refusal(data_dir, secure_url)
    assert not list(data_dir.iterdir())
    secure_server.script = [redirect(secure_url + "?moved")]
    obtain(data_dir, secure_url)
    assert_complete(data_dir)


def test_an_untrusted_certificate_is_refused_at_once(
    secure_server: Server, data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "cannot be trusted" in refusal(data_dir, secure_server.url.replace("http:", "https:"))
    assert secure_server.exchanges == []
    assert "Next try" not in capsys.readouterr().err


# ------------------------------------------------------------------ hostile archives


TRAIN, TEST, META = GOOD
TRAIN_NAME = f"{FOLDER}/train"
EVIL = b"evil" * 100


# In each of these the three right files come out, and whatever else is there stays inside.
HARMLESS = {
    "parent directory": [entry("../evil", EVIL), *GOOD],
    "parent below the folder": [entry(f"{FOLDER}/../../evil", EVIL), *GOOD],
    "name without the folder": [entry("train", EVIL), *GOOD],
    "dotted name": [entry(f"./{TRAIN_NAME}", EVIL), *GOOD],
    "link in place of the folder": [entry(FOLDER, type=tarfile.SYMTYPE, linkname=".."), *GOOD],
    "link, then a file through it": [
        entry(f"{FOLDER}/out", type=tarfile.SYMTYPE, linkname="../.."),
        entry(f"{FOLDER}/out/evil", EVIL),
        *GOOD,
    ],
    "link in place of the part": [
        entry(f"{TRAIN_NAME}.part", type=tarfile.SYMTYPE, linkname="../../evil"),
        *GOOD,
    ],
    "second train": [*GOOD, entry(TRAIN_NAME, EVIL)],
    "second train as a link": [*GOOD, entry(TRAIN_NAME, type=tarfile.SYMTYPE, linkname="meta")],
    "extra files": [entry(f"{FOLDER}/file.txt~", EVIL), entry("n" * 300, EVIL), *GOOD],
    "other device": [entry("dev", type=tarfile.CHRTYPE, devmajor=1, devminor=3), *GOOD],
}
BAD_ENTRY = {
    "symbolic link": [entry(TRAIN_NAME, type=tarfile.SYMTYPE, linkname="/etc/passwd"), TEST, META],
    "hard link": [entry(TRAIN_NAME, type=tarfile.LNKTYPE, linkname=f"{FOLDER}/test"), TEST, META],
    "device": [entry(TRAIN_NAME, type=tarfile.CHRTYPE, devmajor=1, devminor=5), TEST, META],
    "device of the right size": [entry(TRAIN_NAME, type=tarfile.CHRTYPE, size=600_000), TEST, META],
    "pipe": [entry(TRAIN_NAME, type=tarfile.FIFOTYPE), TEST, META],
    "directory": [entry(TRAIN_NAME, type=tarfile.DIRTYPE), TEST, META],
    "sparse": [entry(TRAIN_NAME, CONTENTS["train"], type=tarfile.GNUTYPE_SPARSE), TEST, META],
    "sparse something": [entry("holes", EVIL, type=tarfile.GNUTYPE_SPARSE), *GOOD],
    "larger than declared": [TRAIN, entry(f"{FOLDER}/test", CONTENTS["test"] + b"x"), META],
    "smaller than declared": [entry(TRAIN_NAME, CONTENTS["train"][:-1]), TEST, META],
    "a terabyte of train": [TEST, META, entry(TRAIN_NAME, size=1 << 40)],
    "a terabyte of something": [entry("big", size=1 << 40), *GOOD],
    "negative size of train": [entry(TRAIN_NAME, size=-512), TEST, META],
}
WRONG_CONTENT = {
    "wrong train before the right one": [
        entry(TRAIN_NAME, spoiled(CONTENTS["train"])),
        *GOOD,
    ],
    "right size, but cut": [TEST, META, entry(TRAIN_NAME, size=len(CONTENTS["train"]))],
    "negative size": [entry("back", size=-512), *GOOD],
    "a terabyte of name": [entry("n", size=1 << 40, type=tarfile.GNUTYPE_LONGNAME), *GOOD],
    "missing": [TRAIN, META],
    "empty": [],
}
BROKEN = {
    "no gzip": _noise.randbytes(5000),
    "no tar": gzip.compress(_noise.randbytes(5000)),
    "a web page": b"<html>" + bytes(3000),
    "cut gzip": DATA[: len(DATA) // 2],
    "gzip cut in its header": DATA[:5],
    "flipped gzip": DATA[:400_000] + bytes(100) + DATA[400_100:],
}


def listing(root: Path, *, but: Path) -> dict[str, object]:
    """Everything under `root` except what is under `but`, with contents and link targets."""
    return {
        str(path): path.readlink() if path.is_symlink() else path.is_file() and path.read_bytes()
        for path in root.rglob("*")
        if but not in path.parents
    }


def try_hostile(tmp_path: Path, data_dir: Path, data: bytes) -> Exception | None:
    """Unpack `data`, whose checksum is right, and watch everything outside `data_dir`."""
    write_part(data_dir, data)
    (data_dir.parent / "canary").write_bytes(b"alive")
    before = listing(tmp_path, but=data_dir)
    try:
        obtain(data_dir, "http://unused.invalid/", facts_of(data))
    except DataError as error:
        return error
    finally:
        assert listing(tmp_path, but=data_dir) == before
        for path in data_dir.glob(f"{FOLDER}/*"):
            assert path.is_file()
            assert not path.is_symlink()
            assert path.read_bytes() == CONTENTS[path.name]
    assert_complete(data_dir)
    return None


@pytest.mark.parametrize("entries", HARMLESS.values(), ids=HARMLESS.keys())
def test_entries_that_were_not_asked_for_are_never_written(
    tmp_path: Path, data_dir: Path, entries: list[Entry]
) -> None:
    assert try_hostile(tmp_path, data_dir, pack(entries)) is None


def test_an_absolute_path_is_never_written(tmp_path: Path, data_dir: Path) -> None:
    evil = tmp_path / "evil"
    assert try_hostile(tmp_path, data_dir, pack([entry(str(evil), EVIL), *GOOD])) is None
    assert not evil.exists()


@pytest.mark.parametrize("entries", BAD_ENTRY.values(), ids=BAD_ENTRY.keys())
def test_an_entry_of_wrong_kind_or_size_is_refused_before_it_is_read(
    tmp_path: Path, data_dir: Path, entries: list[Entry]
) -> None:
    assert "bad entry" in str(try_hostile(tmp_path, data_dir, pack(entries)))


@pytest.mark.parametrize("entries", WRONG_CONTENT.values(), ids=WRONG_CONTENT.keys())
def test_an_archive_without_the_right_contents_is_refused(
    tmp_path: Path, data_dir: Path, entries: list[Entry]
) -> None:
    assert try_hostile(tmp_path, data_dir, pack(entries)) is not None


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN.keys())
def test_an_archive_that_cannot_be_read_is_refused(
    tmp_path: Path, data_dir: Path, data: bytes
) -> None:
    assert try_hostile(tmp_path, data_dir, data) is not None


# ------------------------------------------------------------------ kills and full disks


CHILD = """
import json, pathlib, sys, time
from resnet_cifar100.constants import FileFacts
from resnet_cifar100.data import download
data_dir, url, archive, members, stuck_in = json.loads(sys.argv[1])
def stick(*args):
    pathlib.Path(data_dir, "stuck").touch()
    time.sleep(60)
if stuck_in:
    setattr(download.os, stuck_in, stick)
members = {name: FileFacts(*facts) for name, facts in members.items()}
archive = FileFacts(*archive)
download.download_cifar100(pathlib.Path(data_dir), url, archive=archive, members=members)
"""


def kill_when(has_begun: Callable[[], bool], data_dir: Path, url: str, stuck_in: str = "") -> None:
    """Start a download in another process and kill it as soon as `has_begun`."""
    order = json.dumps([str(data_dir), url, FACTS, MEMBERS, stuck_in])
    root = Path(download.__file__).parents[2]
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, order], cwd=root, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 15
    while not has_begun() and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    child.kill()
    assert child.wait() == -signal.SIGKILL


def test_a_kill_while_bytes_arrive_leaves_no_final_file_and_a_rerun_resumes(
    server: Server, data_dir: Path
) -> None:
    part = data_dir / f"{ARCHIVE_NAME}.part"
    server.script = [crawl]
    kill_when(lambda: part.exists() and part.stat().st_size > 0, data_dir, server.url)
    assert list(data_dir.iterdir()) == [part]
    offset = part.stat().st_size
    assert 0 < offset < len(DATA)
    obtain(data_dir, server.url)
    assert server.exchanges[-1].range_header == resumed_at(offset)
    assert_complete(data_dir)


@pytest.mark.parametrize("stuck_in", ["fsync", "replace"])
def test_a_kill_while_unpacking_leaves_no_final_file_and_a_rerun_needs_no_network(
    server: Server, data_dir: Path, stuck_in: str
) -> None:
    kill_when((data_dir / "stuck").exists, data_dir, server.url, stuck_in)
    (data_dir / "stuck").unlink()
    assert list((data_dir / FOLDER).iterdir()) == [data_dir / FOLDER / "train.part"]
    server.exchanges.clear()
    obtain(data_dir, server.url)
    assert server.exchanges == []
    assert_complete(data_dir)


@pytest.mark.parametrize("room", [0, 100_000, 650_000])
def test_a_full_disk_ends_in_one_message_and_a_rerun_finishes(
    server: Server, data_dir: Path, room: int
) -> None:
    resource = pytest.importorskip("resource", reason="needs a POSIX system")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        message = refusal(data_dir, server.url)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert "File too large" in message
    assert not list(data_dir.glob(f"{FOLDER}/*"))
    obtain(data_dir, server.url)
    assert_complete(data_dir)


@pytest.mark.parametrize("taken", ["some", "some/data", f"some/data/{FOLDER}"])
def test_a_file_where_a_folder_should_be_ends_in_one_message(
    server: Server, data_dir: Path, tmp_path: Path, taken: str
) -> None:
    (tmp_path / taken).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / taken).write_bytes(b"mine")
    with pytest.raises(DataError, match="Reading or writing failed"):
        obtain(data_dir, server.url)
    assert (tmp_path / taken).read_bytes() == b"mine"
