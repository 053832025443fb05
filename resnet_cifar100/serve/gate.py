"""What stands before the server: the few requests that it needs pass, all others are refused.

Gradio serves files, proxies, streams and developers' tools besides the page; what is not listed
here is a 404 before it gets there. Headers and queries that nobody needs are dropped, bodies are
read whole first, within limits of length, time and number, and calls are rebuilt from their parts.
"""

import asyncio
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import httpx
from starlette.datastructures import MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from resnet_cifar100.data.images import MAX_BYTES
from resnet_cifar100.serve.uploads import GONE, Uploads

# An uploaded picture, or the number of one of so many examples.
InputKind = Literal["picture"] | int

MAX_BODY = MAX_BYTES + 10_000  # a picture in its multipart wrapping
MAX_BODIES = 64_000_000  # of all that are being received at a time
MAX_JSON = 20_000
BODY_SECONDS = 20.0
_GETS = re.compile(
    r"/|/(config|theme\.css|favicon\.ico|manifest\.json|health)"
    r"|/(assets|static)(/[\w-][\w.-]{0,100}){1,6}"
    r"|/gradio_api/(info|upload_progress|queue/data|file=[^\0]{1,1000})",
    re.ASCII,
)
RUN, JOIN = "/gradio_api/run/predict", "/gradio_api/queue/join"
_POSTS = ("/classify", "/gradio_api/upload", RUN, JOIN)
_SESSION = re.compile(r"[\w-]{1,64}", re.ASCII)
_HOST = re.compile(rb"[\w.:\[\]-]{1,255}")
_HEADERS_IN = {b"accept-encoding", b"content-type", b"x-forwarded-proto"}
_HEADERS_IN |= {b"connection"}  # uvicorn looks there whether to close
_HOSTS = (b"host", b"x-forwarded-host")
_HEADERS_OUT = {
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

    `inputs` says for RUN and for JOIN which functions of the page may be called there: their
    numbers, and the kinds of their inputs.
    """

    def __init__(
        self,
        app: ASGIApp,
        uploads: Uploads,
        inputs: Mapping[str, Mapping[int, Sequence[InputKind]]],
    ) -> None:
        self.app = app
        self.uploads = uploads
        self.inputs = inputs
        self._receiving = 0  # bytes, of all requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer it with a refusal."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS_OUT)
            await send(message)

        try:
            receive = await self._admit(scope, receive)
        except RefusedRequestError as refusal:
            response = JSONResponse({"error": str(refusal)}, refusal.status)
            await response(scope, receive, send_guarded)
            return
        await self.app(scope, receive, send_guarded)

    async def _admit(self, scope: Scope, receive: Receive) -> Receive:
        """Bring the request into its plain form and return its body. Raises RefusedRequestError."""
        method, path = scope["method"], scope["path"]
        if path != "/gradio_api/queue/data":
            scope["query_string"] = b""
        scope["headers"] = _needed_headers(scope)
        if method in ("GET", "HEAD") and _GETS.fullmatch(path):
            return receive
        if method != "POST" or path not in _POSTS:
            raise RefusedRequestError(404, "There is nothing here.")
        body = await self._read_body(receive, MAX_JSON if path in self.inputs else MAX_BODY)
        if path in self.inputs:
            body = json.dumps(self._clean_call(_parse(body), path)).encode()
        scope["headers"].append((b"content-length", str(len(body)).encode()))
        return _replay(body, receive)

    def _clean_call(self, fields: dict[str, Any], path: str) -> dict[str, Any]:
        """Return a call of one of the page's functions with nothing in it but what it needs."""
        number, data = fields.get("fn_index"), fields.get("data")
        kinds = self.inputs[path].get(number) if type(number) is int else None
        if kinds is None or not isinstance(data, list) or len(data) != len(kinds):
            raise RefusedRequestError(422, "This is not a call of one of the page's functions.")
        clean = [self._clean_input(kind, value) for kind, value in zip(kinds, data, strict=True)]
        call = {"data": clean, "fn_index": number}
        if path == RUN:  # without a session Gradio keeps nothing
            return call
        session = fields.get("session_hash")
        if not isinstance(session, str) or not _SESSION.fullmatch(session):
            raise RefusedRequestError(422, "session_hash must be letters and digits.")
        return {**call, "session_hash": session}

    def _clean_input(self, kind: InputKind, value: object) -> object:
        if kind != "picture":
            if type(value) is int and 0 <= value < kind:
                return value
            raise RefusedRequestError(422, "An example is chosen by its number.")
        if value is None:
            return None
        path = self.uploads.find(value.get("path")) if isinstance(value, dict) else None
        if path is None:
            raise RefusedRequestError(422, GONE)
        return {"path": str(path), "meta": {"_type": "gradio.FileData"}}

    async def _read_body(self, receive: Receive, most: int) -> bytes:
        """Return the whole body. Raises RefusedRequestError: too long, too slow, too many."""
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
                    self._receiving += len(part)
                    if length > most:
                        raise RefusedRequestError(
                            413, f"The request is larger than {most:,} bytes."
                        )
                    if self._receiving > MAX_BODIES:
                        raise RefusedRequestError(503, "Too much is arriving; try again.")
                    if not message.get("more_body"):
                        return b"".join(parts)
        except TimeoutError:
            raise RefusedRequestError(408, "The request came too slowly.") from None
        finally:
            self._receiving -= length


def _needed_headers(scope: Scope) -> list[tuple[bytes, bytes]]:
    """Return the headers that the server needs. Without Origin it grants nothing to other sites."""
    kept = []
    for name, value in scope["headers"]:
        if name in _HOSTS:
            value = value.partition(b",")[0].strip()  # Gradio makes an address of the first
            try:
                if not _HOST.fullmatch(value):
                    raise httpx.InvalidURL("")
                httpx.URL(f"http://{value.decode()}/")
            except httpx.InvalidURL:
                raise RefusedRequestError(400, "The name of this host is not one.") from None
        if name in _HEADERS_IN or name in _HOSTS:
            kept.append((name, value))
    if not any(name == b"host" for name, _ in kept):
        raise RefusedRequestError(400, "The request names no host.")
    return kept


def _parse(body: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        raise RefusedRequestError(422, "The request is not a JSON object.")
    return fields


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a channel that gives the body once and then listens for a disconnect."""
    rest = [body]

    async def receive_again() -> Message:
        if rest:
            return {"type": "http.request", "body": rest.pop(), "more_body": False}
        return await receive()

    return receive_again
