"""What stands before the page: the few requests that it needs pass, everything else is refused.

Gradio serves files, proxies, streams and developers' tools besides what this page uses; whatever is
not listed here is a 404 before it gets there. Bodies are read whole first, within limits of length
and time, and the two requests that name files may only name pictures that were uploaded.
"""

import asyncio
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote

from starlette.datastructures import MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from resnet_cifar100.data.images import MAX_BYTES

InputKind = (
    Literal["picture"] | int
)  # an uploaded picture, or the number of one of so many examples

MAX_BODY = MAX_BYTES + 10_000  # a picture in its multipart wrapping
MAX_JSON = 20_000
BODY_SECONDS = 20.0
_PAGE = re.compile(
    r"/|/(config|theme\.css|favicon\.ico|robots\.txt|manifest\.json|health)"
    r"|/(assets|static|svelte)(/[\w-][\w.-]*)+"
    r"|/gradio_api/(info|startup-events|theme\.css|upload_progress|app_id|queue/data)"
    r"|/gradio_api/heartbeat/\w{1,40}|/gradio_api/call/classify/\w{1,40}"
)
_POSTS = ("/classify", "/gradio_api/upload", "/gradio_api/queue/join", "/gradio_api/call/classify")
_POSTS += ("/gradio_api/run/predict", "/gradio_api/cancel", "/gradio_api/reset")
_SESSION = re.compile(r"[\w-]{1,64}")
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:; "
    "media-src 'self' blob:; style-src 'self' 'unsafe-inline'; font-src 'self' data:; "
    "script-src 'self' 'unsafe-inline' 'unsafe-eval'; connect-src 'self' data: blob:; "
    "worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'",
}


class RefusedRequestError(Exception):
    """A request that does not pass, with its HTTP status and a sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class Gate:
    """ASGI middleware around the whole server.

    `uploads` is the folder of uploaded pictures; `inputs` maps the number of each of the page's
    functions to the kinds of its inputs, and `classify` is the number of the one with that name.
    """

    def __init__(
        self,
        app: ASGIApp,
        uploads: Path,
        inputs: Mapping[int, Sequence[InputKind]],
        classify: int,
    ) -> None:
        self.app = app
        self.uploads = uploads.resolve()
        self.inputs = inputs
        self.classify = classify
        self._file = re.compile(rf"/gradio_api/file={re.escape(str(self.uploads))}/\w+/[^/\\\0]+")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer it with a refusal."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        try:
            receive = await self._admit(scope, receive)
        except RefusedRequestError as refusal:
            response = JSONResponse({"error": str(refusal)}, refusal.status)
            await response(scope, receive, send_guarded)
            return
        await self.app(scope, receive, send_guarded)

    async def _admit(self, scope: Scope, receive: Receive) -> Receive:
        """Return what the server may read. Raises RefusedRequestError."""
        method, path = scope["method"], unquote(scope["path"])
        if method in ("GET", "HEAD", "OPTIONS"):
            if ".." in path or not (_PAGE.fullmatch(path) or self._file.fullmatch(path)):
                raise RefusedRequestError(404, "There is nothing here.")
            return receive
        if method != "POST" or path not in _POSTS:
            raise RefusedRequestError(404, "There is nothing here.")
        is_picture = path in ("/classify", "/gradio_api/upload")
        body = await _read_body(receive, MAX_BODY if is_picture else MAX_JSON)
        if path == "/gradio_api/upload" and body.count(b"filename") != 1:
            raise RefusedRequestError(400, "An upload must hold one file.")
        if not is_picture:
            fields = _parse(body)
            if path not in ("/gradio_api/cancel", "/gradio_api/reset"):
                fields = self._clean_call(fields, path)
            body = json.dumps(fields).encode()
            headers = [pair for pair in scope["headers"] if pair[0] != b"content-length"]
            scope["headers"] = [*headers, (b"content-length", str(len(body)).encode())]
        return _replay(body, receive)

    def _clean_call(self, fields: dict[str, Any], path: str) -> dict[str, Any]:
        """Return a call of one of the page's functions with nothing in it but what it needs."""
        is_simple = path == "/gradio_api/call/classify"
        number = self.classify if is_simple else fields.get("fn_index")
        kinds = self.inputs.get(number) if type(number) is int else None
        if path == "/gradio_api/run/predict" and kinds and "picture" in kinds:
            kinds = None  # what looks at pictures waits in the queue
        data = fields.get("data")
        if kinds is None or not isinstance(data, list) or len(data) != len(kinds):
            raise RefusedRequestError(422, "This is not a call of one of the page's functions.")
        clean = [self._clean_input(kind, value) for kind, value in zip(kinds, data, strict=True)]
        if is_simple:
            return {"data": clean}
        session, trigger = fields.get("session_hash"), fields.get("trigger_id")
        if not isinstance(session, str) or not _SESSION.fullmatch(session):
            raise RefusedRequestError(422, "session_hash must be letters and digits.")
        trigger = trigger if type(trigger) is int else None
        kept = {"fn_index": number, "session_hash": session, "trigger_id": trigger}
        return {"data": clean, "event_data": None, **kept}

    def _clean_input(self, kind: InputKind, value: object) -> object:
        if kind != "picture":
            if type(value) is int and 0 <= value < kind:
                return value
            raise RefusedRequestError(422, "An example is chosen by its number.")
        if value is None:
            return None
        name = value.get("path") if isinstance(value, dict) else None
        if not isinstance(name, str) or not self._is_upload(name):
            raise RefusedRequestError(422, "The picture is not there: upload it again.")
        return {"path": name, "orig_name": "picture", "meta": {"_type": "gradio.FileData"}}

    def _is_upload(self, name: str) -> bool:
        try:
            path = Path(name).resolve(strict=True)
        except (OSError, ValueError, RuntimeError):
            return False
        return path.is_relative_to(self.uploads) and path.is_file()


def _parse(body: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        raise RefusedRequestError(422, "The request is not a JSON object.")
    return fields


async def _read_body(receive: Receive, most: int) -> bytes:
    """Return the whole body. Raises RefusedRequestError where it is too long or too slow."""
    parts, length = [], 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise RefusedRequestError(400, "The request broke off.")
                part = message.get("body", b"")
                parts.append(part)
                length += len(part)
                if length > most:
                    raise RefusedRequestError(413, f"The request is larger than {most:,} bytes.")
                if not message.get("more_body"):
                    return b"".join(parts)
    except TimeoutError:
        raise RefusedRequestError(408, "The request came too slowly.") from None


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a channel that gives the body once and then listens for a disconnect."""
    rest = [body]

    async def receive_again() -> Message:
        if rest:
            return {"type": "http.request", "body": rest.pop(), "more_body": False}
        return await receive()

    return receive_again
