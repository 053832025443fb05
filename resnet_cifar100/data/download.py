"""Fetch the CIFAR-100 archive and unpack its three files, trusting nothing but their checksums.

Bytes go to a name ending in `.part`; a final name stands only for a complete and verified file.
"""

import hashlib
import os
import re
import shutil
import socket
import ssl
import tarfile
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from http.client import HTTPException, HTTPMessage, HTTPResponse, InvalidURL
from pathlib import Path
from typing import IO
from urllib.error import HTTPError
from urllib.request import HTTPRedirectHandler, Request, build_opener

from filelock import FileLock, Timeout
from rich.console import Console
from rich.progress import DownloadColumn, Progress, TransferSpeedColumn

from resnet_cifar100.config import without_secrets
from resnet_cifar100.constants import ARCHIVE, ARCHIVE_URL, FOLDER, MEMBERS, FileFacts
from resnet_cifar100.errors import DataError

ARCHIVE_NAME = f"{FOLDER}.tar.gz"
CHUNK = 1 << 16  # bytes read at a time
TIMEOUT_S = 20.0  # of silence, while connecting and while reading
BACKOFF_S = (1.0, 2.0, 4.0)  # waits between four tries, so a host that refuses costs 7 s
SLOW_LOOKUP_S = 1.0  # a name look-up that took longer and failed is not repeated


class _PassingFault(Exception):  # noqa: N818 - never leaves this file
    """A network fault worth another try; `is_stale` if that try must begin at the first byte."""

    def __init__(self, reason: str, *, is_stale: bool = False) -> None:
        super().__init__(reason)
        self.is_stale = is_stale


def verify_file(path: Path, facts: FileFacts) -> bool:
    """Return whether `path` is a file whose size and SHA-256 agree with `facts`."""
    if not path.is_file() or path.stat().st_size != facts.size:
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == facts.sha256


def how_to_get_it(data_dir: Path, url: str) -> str:
    """Return what a person can do when the download from `url` fails."""
    return (
        "What you can do: run it again (a partial download is resumed), or\n"
        f"  - put {without_secrets(url)} at {data_dir / ARCHIVE_NAME} by hand\n"
        f"    (SHA-256 {ARCHIVE.sha256});\n"
        f"  - train with a mirror: train.py --data-url URL (the official one is {ARCHIVE_URL});\n"
        "  - train without the real data: train.py --dataset synthetic"
    )


def download_cifar100(
    data_dir: Path,
    url: str = ARCHIVE_URL,
    *,
    archive: FileFacts = ARCHIVE,
    members: Mapping[str, FileFacts] = MEMBERS,
) -> Path:
    """Return the folder of the verified `members`; each fault is a DataError with `how_to_get_it`.

    An archive that a person put into `data_dir` is used instead of the network, and kept. Where
    several processes want it at once, one fetches it and the others wait.
    """
    folder = data_dir / FOLDER
    try:
        if not _is_complete(folder, members):
            data_dir.mkdir(parents=True, exist_ok=True)
            with _lock(data_dir):
                if not _is_complete(folder, members):
                    _obtain(data_dir, url, archive, members)
    except (DataError, OSError) as error:
        is_ours = isinstance(error, DataError)
        reason = str(error) if is_ours else f"Reading or writing failed: {error}."
        reason = reason.replace(url, without_secrets(url))
        raise DataError(f"{reason}\n{how_to_get_it(data_dir, url)}") from error
    return folder


def _lock(data_dir: Path) -> AbstractContextManager[FileLock]:
    """Wait until no other process fetches into `data_dir`, and say so where that takes long."""
    lock = FileLock(data_dir / f".{FOLDER}.lock")
    try:
        return lock.acquire(timeout=1)
    except Timeout:
        _console().print(f"Another process fetches the data set into {data_dir}: waiting for it.")
        return lock.acquire()


def _is_complete(folder: Path, members: Mapping[str, FileFacts]) -> bool:
    return all(verify_file(folder / name, facts) for name, facts in members.items())


def _obtain(data_dir: Path, url: str, archive: FileFacts, members: Mapping[str, FileFacts]) -> None:
    """Unpack the archive that is there, or fetch it first."""
    source, part = data_dir / ARCHIVE_NAME, data_dir / f"{ARCHIVE_NAME}.part"
    if not source.exists():
        source = part
        _fetch_verified(url, part, archive)
    elif not verify_file(source, archive):
        raise DataError(f"{source} is not the official archive; replace or remove it.")
    _unpack(source, data_dir / FOLDER, members)
    part.unlink(missing_ok=True)


def _fetch_verified(url: str, part: Path, facts: FileFacts) -> None:
    """Make `part` the archive that `facts` describe; a complete but wrong one is fetched anew."""
    _check_scheme(url, {"http", "https"})
    if re.match(r"\w+://[^/?]*@", url):
        raise DataError(f"{url} is refused: an address may name no user and no password.")
    console = _console()
    for _ in range(2):
        _fetch(url, part, facts.size, console)
        if verify_file(part, facts):
            return
        part.unlink()
    raise DataError(f"What {url} sends is not the official archive: its checksums differ.")


def _console() -> Console:
    return Console(stderr=True, markup=False, highlight=False, emoji=False, soft_wrap=True)


def _fetch(url: str, part: Path, size: int, console: Console) -> None:
    """Bring `part` to `size` bytes, in several tries if need be; each resumes the one before."""
    for wait in (*BACKOFF_S, None):
        try:
            _fetch_rest(url, part, size, console)
            return
        except _PassingFault as fault:
            if fault.is_stale:
                part.unlink(missing_ok=True)
            if wait is None:
                raise DataError(f"The download of {url} failed: {fault}.") from fault
            console.print(f"The download was interrupted: {fault}. Next try in {wait:g} s.")
            time.sleep(wait)


def _fetch_rest(url: str, part: Path, size: int, console: Console) -> None:
    """Append the missing bytes to `part`, or write it anew if it or the server demands that."""
    done = part.stat().st_size if part.exists() else 0
    if done == size:
        return
    with _open(url, done if done < size else 0) as response:
        done = _first_byte(response, done, size)
        meter = _Meter(console, url, done=done, size=size)
        with part.open("ab" if done else "wb") as file, meter.bar:
            while done <= size and (block := _receive(response)):
                done += len(block)
                file.write(block)
                meter.show(done)
    if done > size:
        part.unlink()
        raise DataError(f"{url} sends more than the {size:,} bytes of the official archive.")
    if done < size:
        raise _PassingFault(f"the server stopped after {done:,} of {size:,} bytes")


def _open(url: str, offset: int) -> HTTPResponse:
    """Ask for the bytes from `offset` on; tell faults that may pass from those that will not."""
    began = time.monotonic()
    try:
        request = Request(url, headers={"Range": f"bytes={offset}-"} if offset else {})
        response: HTTPResponse = build_opener(_SafeRedirects).open(request, timeout=TIMEOUT_S)
        return response
    except HTTPError as error:
        error.close()
        if error.code >= 500 or error.code in (408, 416, 429):
            raise _PassingFault(f"the server answers {error}", is_stale=error.code == 416) from None
        raise DataError(f"The server does not give out {url}: {error}.") from error
    except (ValueError, InvalidURL) as error:
        raise DataError(f"{url} is not a usable address: {error}.") from error
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise DataError(f"{url} cannot be trusted: {reason}.") from error
        if isinstance(reason, socket.gaierror) and time.monotonic() - began > SLOW_LOOKUP_S:
            raise DataError(f"The host of {url} cannot be found: {reason}.") from error
        raise _PassingFault(f"no answer ({reason})") from error


def _first_byte(response: HTTPResponse, offset: int, size: int) -> int:
    """Return where in the file the answer begins; refuse a file of another size."""
    is_partial = response.status == 206
    span = response.headers["Content-Range" if is_partial else "Content-Length"] or ""
    total = span.rpartition("/")[2]
    if total.isdecimal() and int(total) != size:
        raise DataError(f"{response.url} has {int(total):,} bytes, the official archive {size:,}.")
    if is_partial and not span.startswith(f"bytes {offset}-"):
        raise _PassingFault(f"the server sends the wrong part ({span})", is_stale=True)
    return offset if is_partial else 0


def _receive(response: HTTPResponse) -> bytes:
    """Read one block. Only the network can fail here, so a full disk is never mistaken for it."""
    try:
        return response.read(CHUNK)
    except (OSError, HTTPException) as error:
        raise _PassingFault(f"the connection broke ({error})") from error


class _Meter:
    """A live bar on a terminal; elsewhere one line at the start and one at each tenth."""

    def __init__(self, console: Console, url: str, *, done: int, size: int) -> None:
        columns = (*Progress.get_default_columns(), DownloadColumn(), TransferSpeedColumn())
        self.bar = Progress(*columns, console=console, disable=not console.is_interactive)
        self.task = self.bar.add_task("CIFAR-100", total=size, completed=done)
        self.console, self.size, self.tenths = console, size, 10 * done // size
        here = f"{done / 1e6:.1f} of {size / 1e6:.1f} MB are here"
        console.print(f"Downloading {without_secrets(url)} ({here}).")

    def show(self, done: int) -> None:
        """Tell how many bytes are here now."""
        self.bar.update(self.task, completed=done)
        before, self.tenths = self.tenths, 10 * done // self.size
        if self.tenths > before and not self.console.is_interactive:
            self.console.print(f"{10 * self.tenths}% of {self.size / 1e6:.1f} MB")


def _check_scheme(url: str, allowed: set[str]) -> None:
    """Refuse an address that does not begin with one of the `allowed` schemes."""
    if url.partition("://")[0].lower() not in allowed:
        raise DataError(f"The address {url!r} is refused: only {sorted(allowed)} will do.")


class _SafeRedirects(HTTPRedirectHandler):
    """Follow redirects, but never from https to anything less."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        """Return the request for `newurl`, which must be as safe as the one before."""
        fp.close()  # the body of a redirect is of no interest
        _check_scheme(newurl, {"https", req.type})
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _unpack(archive: Path, folder: Path, members: Mapping[str, FileFacts]) -> None:
    """Write the `members` into `folder`; not one byte of anything else in the archive."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {f"{FOLDER}/{name}": name for name in members}
    largest = max(facts.size for facts in members.values())
    try:
        with tarfile.open(archive, "r|gz") as tar:  # a stream: sizes < 0 cannot go back and loop
            for entry in tar:
                name = wanted.pop(entry.name, None)
                is_sane = entry.size <= largest and not entry.issparse()  # others may loop
                is_right = not name or (entry.isreg() and entry.size == members[name].size)
                if not (is_sane and is_right):
                    raise DataError(f"{archive} holds a bad entry: {entry.name!r}.")
                if name and (content := tar.extractfile(entry)):
                    _place(content, folder / name, members[name])
    except tarfile.TarError as error:
        raise DataError(f"{archive} cannot be unpacked: {error}.") from error
    if wanted:
        raise DataError(f"{archive} lacks {', '.join(wanted)}.")


def _place(source: IO[bytes], path: Path, facts: FileFacts) -> None:
    """Copy `source` to `path`, which appears only once it is complete, on disk and verified."""
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("wb") as file:
            shutil.copyfileobj(source, file)
            file.flush()
            os.fsync(file.fileno())
        if not verify_file(part, facts):
            raise DataError(f"{path.name} in the archive has the wrong checksum.")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
