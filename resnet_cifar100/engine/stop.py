"""Ending a run before its last step: at a signal, or when its time is up."""

import math
import signal
import time
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import Any, Self, TypeVar

from resnet_cifar100.errors import InterruptedRunError
from resnet_cifar100.parallel import highest_of_all_processes

T = TypeVar("T")
TIME_IS_UP = 8  # the exit code; that of a signal is 128 and its number
_SAVE = 1  # what a process asks of all: nothing, a save, or to stop with an exit code
_RESERVE = 2.0  # times the slowest step and save so far are left when a run stops for its limit


class StopRequested(Exception):  # noqa: N818 - no error: the run saves its state and ends
    """All processes have agreed to stop here, where the state is whole."""

    def __init__(self, exit_code: int) -> None:
        super().__init__()
        self.exit_code = exit_code


class Stop:
    """Context that notes Ctrl-C and SIGTERM, and answers every process alike when it asks.

    A second Ctrl-C ends the run at once. A second SIGTERM does not: a launcher repeats what a
    scheduler has sent. Before it is entered a signal does what it does to any program.
    `max_hours` is counted from the making of this object; 0 sets no limit.
    """

    def __init__(self, max_hours: float) -> None:
        self.started = time.monotonic()
        self.limit = 3600 * max_hours or math.inf
        self.exit_code = 0
        self.previous: dict[int, Any] = {}
        self.last_poll = self.started
        self.slowest = 0.0  # seconds between two polls

    def __enter__(self) -> Self:
        handled = (signal.SIGINT, signal.SIGTERM)
        self.previous = {number: signal.signal(number, self._note) for number in handled}
        self.last_poll = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def poll(self, *, is_save_due: bool = False) -> bool:
        """Return whether any process wants a save; all of them have to call this together.

        Raises:
            StopRequested: in every process, where one has been told to stop, or time is up.
        """
        now = time.monotonic()
        self.slowest = max(self.slowest, now - self.last_poll)
        self.last_poll = now
        if now - self.started + _RESERVE * self.slowest >= self.limit:
            self.exit_code = self.exit_code or TIME_IS_UP
        asked = highest_of_all_processes(self.exit_code or _SAVE * is_save_due)
        if asked > _SAVE:
            raise StopRequested(asked)
        return asked == _SAVE

    def between(self, items: Iterable[T]) -> Iterator[T]:
        """Yield the items, with a poll before each."""
        for item in items:
            self.poll()
            yield item

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.exit_code == 128 + number:
            raise InterruptedRunError("stopped at once, without saving", 128 + number)
        self.exit_code = 128 + number
