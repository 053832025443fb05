"""Files written so that a crash, a kill or a full disk leaves the old content or the new.

And what can be said of a file from outside before it is let near a parser: that it will not fill
the memory.
"""

import contextlib
import csv
import glob
import hashlib
import io
import os
import zipfile
from collections.abc import Iterable
from pathlib import Path

from resnet_cifar100.errors import CheckpointError

# Of names and shapes in front of the values, or a pickle; the deepest network here has 0.3 MB.
MAX_HEADER_BYTES = 1 << 20


def write_durably(path: Path, content: bytes) -> None:
    """Write `content` to a new file and wait until the disk has it.

    Raises:
        OSError: as the system says; the file may then be incomplete.
    """
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Wait until the disk has the names in `folder`: a rename is only safe after that."""
    if os.name == "nt":  # a folder cannot be opened there, and renames are journalled
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(path: Path, content: bytes | str) -> None:
    """Give `path` a new content in one step: written beside it, synced, renamed over it.

    Raises:
        CheckpointError: where it cannot be written; the old file is then untouched.
    """
    _replace({path: content.encode() if isinstance(content, str) else content})


def replace_csv(path: Path, rows: Iterable[Iterable[object]]) -> None:
    """Write a table, its head first, in the same way."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    replace_file(path, text.getvalue())


def replace_with_checksum(content: bytes, *paths: Path) -> None:
    """Write `content` to each of `paths` as `replace_file` does, with NAME.sha256 beside it.

    A kill in between leaves no checksum, never that of other content.

    Raises:
        CheckpointError: as above.
    """
    for path in paths:
        line = f"{sha256_of(content)}  {path.name}\n"
        _replace({path: content, path.with_name(f"{path.name}.sha256"): line.encode()})


def _replace(contents: dict[Path, bytes]) -> None:
    """Replace the first file, then those that belong to it; until then they are missing."""
    temporaries = {path.with_name(f".{path.name}.{os.getpid()}.tmp"): path for path in contents}
    path, *others = contents
    end = "; its old content is untouched"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for temporary, final in temporaries.items():
            write_durably(temporary, contents[final])
        for other in others:
            other.unlink(missing_ok=True)
        for temporary, final in temporaries.items():
            temporary.replace(final)
            end = ""
            sync_folder(path.parent)
    except OSError as error:
        for temporary in temporaries:
            with contextlib.suppress(OSError):
                temporary.unlink()
        raise CheckpointError(
            f"{path} cannot be written ({error.strerror or error}){end}"
        ) from error


def remove_temporaries(path: Path) -> None:
    """Remove what writers of `path` that are no more left beside it."""
    for temporary in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        writer = temporary.name.split(".")[-2]
        if writer.isdecimal() and not _is_running(int(writer)):
            with contextlib.suppress(OSError):
                temporary.unlink()


def _is_running(process: int) -> bool:
    if os.name == "nt":  # where signal 0 is no question
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is somebody else's
        return True
    return True


def check_zip(path: Path) -> None:
    """Refuse a PyTorch file that unpacks to more than its own size, or with a long pickle.

    Raises:
        ValueError: where it is one, or no zip file; anything, where it is damaged.
    """
    with path.open("rb") as file:
        is_zip = file.read(4) == b"PK\x03\x04"
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    is_packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
    unpacked = sum(entry.file_size for entry in entries)
    pickled = sum(entry.file_size for entry in entries if entry.filename.endswith(".pkl"))
    if not is_zip or is_packed or unpacked > path.stat().st_size or pickled > MAX_HEADER_BYTES:
        raise ValueError(f"{path} is not as torch.save writes it")


def check_header(start: bytes) -> None:
    """Refuse a .safetensors file, of which `start` is the first 8 bytes, for a long header.

    Raises:
        ValueError: where its header is longer than any network here needs.
    """
    if int.from_bytes(start[:8], "little") > MAX_HEADER_BYTES:
        raise ValueError("its header is too long")


def sha256_of(content: bytes) -> str:
    """Return the SHA-256 of `content` in hexadecimal."""
    return hashlib.sha256(content).hexdigest()
