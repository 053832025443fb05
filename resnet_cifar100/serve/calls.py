"""Calls of gradio_client: Gradio's protocol (sse_v3), without Gradio's queue.

Gradio's own queue keeps messages nobody fetches, and one visitor can bring it to a stop. This keeps
at most `MOST_SESSIONS` sessions of `MOST_CALLS` answers, for a minute, and works on at most
`MOST_UNFINISHED` calls at a time.
"""

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Coroutine
from typing import Any

MOST_SESSIONS = 256
MOST_CALLS = 32  # of one session at a time
MOST_UNFINISHED = 64  # of all sessions, those included whose client has gone
SECONDS = 60.0


class BusyError(Exception):
    """There is no room for another call."""


class _Session:
    """The calls of one client; `messages` are the answers that it has not fetched."""

    def __init__(self) -> None:
        self.pending = 0
        self.messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.is_streaming = False
        self.started = time.monotonic()


class Calls:
    """All sessions. Everything here runs in the event loop."""

    def __init__(self) -> None:
        self._sessions: dict[str, _Session] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, session_hash: str, work: Coroutine[Any, Any, dict[str, Any]]) -> str:
        """Begin a call whose answer is `work`, and return its number for the stream.

        Raises:
            BusyError: where there are too many.
        """
        self.sweep()
        if len(self._tasks) >= MOST_UNFINISHED:
            raise BusyError
        session = self._sessions.get(session_hash)
        if session is None:
            if len(self._sessions) >= MOST_SESSIONS:
                raise BusyError
            session = self._sessions[session_hash] = _Session()
        if session.pending + session.messages.qsize() >= MOST_CALLS:
            raise BusyError
        event = secrets.token_hex(16)
        session.pending += 1
        task = asyncio.create_task(self._finish(session, event, work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return event

    def can_stream(self, session_hash: str) -> bool:
        """Whether there is something to fetch for this session, and nobody fetches it yet."""
        session = self._sessions.get(session_hash)
        return session is not None and not session.is_streaming

    async def stream(self, session_hash: str) -> AsyncIterator[str]:
        """Yield the answers of a session as server-sent events, until none is pending."""
        session = self._sessions.get(session_hash)
        if session is None:  # swept since `can_stream`
            return
        session.is_streaming = True
        try:
            while session.pending or not session.messages.empty():
                message = await asyncio.wait_for(session.messages.get(), SECONDS)
                yield f"data: {json.dumps(message)}\n\n"
        except TimeoutError:
            return
        finally:  # before the last word: a call that comes now begins a new session
            self._sessions.pop(session_hash, None)
        yield 'data: {"msg": "close_stream", "event_id": null}\n\n'

    def sweep(self) -> None:
        """Forget the sessions begun a minute ago whose answers nobody fetches."""
        now = time.monotonic()
        for name, session in list(self._sessions.items()):
            if not session.is_streaming and now - session.started > SECONDS:
                del self._sessions[name]

    async def _finish(
        self, session: _Session, event: str, work: Coroutine[Any, Any, dict[str, Any]]
    ) -> None:
        outcome: dict[str, Any] = {"output": {"error": "The server failed."}, "success": False}
        try:
            outcome = await work
        finally:  # a fault goes to the log, and whoever waits is told at once
            session.pending -= 1
            message = {"msg": "process_completed", "event_id": event, **outcome}
            session.messages.put_nowait(message)
