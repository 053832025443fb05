"""Files written so that a crash, a kill or a full disk leaves the old content or the new."""

import contextlib
import hashlib
import os
from pathlib import Path

from resnet_cifar100.errors import CheckpointError


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
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(temporary, content.encode() if isinstance(content, str) else content)
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise CheckpointError(
            f"{path} cannot be written ({error.strerror or error}); its old content is untouched"
        ) from error


def remove_temporaries(path: Path) -> None:
    """Remove what writers of `path` that are no more left beside it."""
    for temporary in path.parent.glob(f".{path.name}.*.tmp"):
        writer = temporary.name.split(".")[-2]
        if writer.isdecimal() and not _is_running(int(writer)):
            temporary.unlink(missing_ok=True)


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


def sha256_of(content: bytes) -> str:
    """Return the SHA-256 of `content` in hexadecimal."""
    return hashlib.sha256(content).hexdigest()
