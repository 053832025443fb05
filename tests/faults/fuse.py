"""A file system that breaks at the Nth operation: the method of SQLite's tests of I/O errors."""

import errno
import functools
import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest

CHANGES = ("mkdir", "rename", "replace", "unlink", "rmdir", "fsync")  # what else than open and
# write changes a disk; pathlib and shutil call these through os


class KilledError(BaseException):
    """Stands for a kill: no handler of the program may see it, nor may it do anything after."""


class Fuse:
    """Context in which operation `number` breaks, before or `after` it is done.

    A "kill" ends everything; an "error" of the disk passes, "errors" stay. `trace` holds what was
    done and to what, as in "write state.json"; a write is two operations, one a half.
    """

    def __init__(self, number: int, kind: str = "kill", when: str = "before") -> None:
        self.left = number
        self.kind = kind
        self.when = when
        self.trace: list[str] = []

    def __enter__(self) -> Self:
        self.patch = pytest.MonkeyPatch()
        opened = Path.open

        def open_file(path: Path, mode: str = "r", *rest: Any, **named: Any) -> Any:
            if "r" in mode:
                return opened(path, mode, *rest, **named)
            file = self._do("open", path, functools.partial(opened, path, mode, *rest, **named))
            return _File(file, path, self)

        self.patch.setattr(Path, "open", open_file)
        for name in CHANGES:
            self.patch.setattr(os, name, self._guarded(name, getattr(os, name)))
        return self

    def __exit__(self, *_: object) -> None:
        self.patch.undo()

    @property
    def is_blown(self) -> bool:
        return self.left <= 0

    def _guarded(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(target: Any, *rest: Any, **named: Any) -> Any:
            path = os.readlink(f"/proc/self/fd/{target}") if isinstance(target, int) else target
            return self._do(name, path, functools.partial(function, target, *rest, **named))

        return run

    def _do(self, name: str, path: str | Path, act: Callable[[], Any]) -> Any:
        self.left -= 1
        is_dead = self.left < 0 and self.kind != "error"
        if is_dead or (self.left == 0 and self.when == "before"):
            self._break()
        result = act()
        self.trace.append(f"{name} {os.path.basename(path)}")
        if self.left == 0:
            getattr(result, "close", bool)()
            self._break()
        return result

    def _break(self) -> None:
        if self.kind == "kill":
            raise KilledError
        raise OSError(errno.EIO, os.strerror(errno.EIO))


class _File:
    """An open file whose writes are operations of the fuse."""

    def __init__(self, file: Any, path: Path, fuse: Fuse) -> None:
        self.file, self.path, self.fuse = file, path, fuse

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def write(self, content: bytes) -> None:
        middle = len(content) // 2
        for half in (content[:middle], content[middle:]):
            self.fuse._do("write", self.path, functools.partial(self.file.write, half))


def every_fault(*, full: bool) -> Iterator[Fuse]:
    """Yield, for each kind of fault, a fuse for operation 1, 2, 3, ... until one does not blow."""
    faults = itertools.product(("kill", "error", "errors"), ("before", "after"))
    for kind, when in faults if full else (("kill", "after"), ("error", "before")):
        for number in itertools.count(1):
            yield (fuse := Fuse(number, kind, when))
            if not fuse.is_blown:
                break
