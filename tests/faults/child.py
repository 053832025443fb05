"""A forked process, which may be starved, and whose memory and time are its own."""

import ctypes
import json
import os
import resource
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

if not Path("/proc/self/clear_refs").exists():
    pytest.skip("needs the /proc of Linux", allow_module_level=True)


class Outcome(NamedTuple):
    """What a child gave back; `megabytes` is how far its memory rose above that of its parent."""

    fault: str  # the name of what it raised, or ""
    message: str
    megabytes: float
    seconds: float  # of computing: others may be busy here too


def in_child(act: Callable[[], object], *, most_file_bytes: int | None = None) -> Outcome:
    """Do it in a fork of this process, which may be forbidden to write files beyond a size."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the threads here, none of which the child uses
        process = os.fork()
    if process == 0:
        try:
            if most_file_bytes is not None:  # Python ignores the signal that comes with it
                resource.setrlimit(resource.RLIMIT_FSIZE, (most_file_bytes,) * 2)
            os.write(writer, json.dumps(_outcome(act)).encode())
            sys.stderr.flush()
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as answers:
        answer = answers.read()
    os.waitpid(process, 0)
    return Outcome(*json.loads(answer))


def in_words(outcomes: Sequence[Outcome]) -> str:
    """Return the row of a table about acts that were refused."""
    count = len(outcomes)
    slowest = max(outcome.seconds for outcome in outcomes)
    largest = max(outcome.megabytes for outcome in outcomes)
    return f"{count} of {count} refused, 0 ran; slowest {slowest:.2f} s, most {largest:.0f} MB more"


def _outcome(act: Callable[[], object]) -> Outcome:
    _forget_what_was_freed()
    before, started = _peak_megabytes(), time.process_time()
    fault = message = ""
    try:
        act()
    except BaseException as error:  # whatever it is, the parent judges it
        fault, message = type(error).__name__, str(error)[:4000]
    return Outcome(fault, message, _peak_megabytes() - before, time.process_time() - started)


def _forget_what_was_freed() -> None:
    """Let what is taken from now on raise the peak, though the parent keeps what it freed."""
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak is what is in use now


def _peak_megabytes() -> float:
    status = Path("/proc/self/status").read_text()  # not ru_maxrss, which nothing can lower
    return int(status.split("VmHWM:")[1].split()[0]) / 1024
