"""The requests that this project answers itself; Gradio answers only for its page."""

import asyncio
import contextlib
import mimetypes
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from resnet_cifar100.data.images import MAX_BYTES
from resnet_cifar100.errors import ImageError
from resnet_cifar100.serve.calls import BusyError, Calls
from resnet_cifar100.serve.predictor import Predictor
from resnet_cifar100.serve.render import answer_json
from resnet_cifar100.serve.uploads import GONE, Uploads

MAX_WAITING = 64  # pictures sent to /classify at a time; one more is told to come back
THREADS = 8
SWEEP_SECONDS = 20.0


class Api:
    """The handlers, with what they share. All of them run in the event loop."""

    def __init__(self, predictor: Predictor, uploads: Uploads) -> None:
        self.predictor = predictor
        self.uploads = uploads
        self.calls = Calls()
        self._threads = ThreadPoolExecutor(THREADS, "classify")
        self._waiting = 0

    def create_app(self) -> FastAPI:
        """Return the application; Gradio's is mounted behind its routes."""
        app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=self._lifespan)
        for path, handler in (
            ("/health", self.health),
            ("/gradio_api/upload_progress", self.upload_progress),
            ("/gradio_api/file={name:path}", self.file),
        ):  # else HEAD goes on to Gradio, as for queue/data, which answers it with 405
            app.api_route(path, methods=["GET", "HEAD"])(handler)
        app.post("/classify")(self.classify)
        app.post("/gradio_api/upload")(self.upload)
        app.post("/gradio_api/queue/join")(self.join)
        app.get("/gradio_api/queue/data")(self.data)
        return app

    async def health(self) -> Response:
        """Say that the server answers."""
        return JSONResponse({"status": "ok"})

    async def classify(self, request: Request) -> Response:
        """Answer about the picture whose bytes are the request."""
        if self._waiting >= MAX_WAITING:
            return _busy()
        self._waiting += 1
        try:
            content = await request.body()
            return JSONResponse(await self._answer(lambda: content))
        except ImageError as refusal:
            return JSONResponse({"error": str(refusal)}, 422)
        finally:
            self._waiting -= 1

    async def upload(self, request: Request) -> Response:
        """Keep one file of a form; return its path in a list, as Gradio's own route does."""
        try:
            return await self._keep(request)
        except OSError:  # the disk is full, or something else cleans up there
            return _busy()

    async def _keep(self, request: Request) -> Response:
        try:
            form = await request.form(max_files=1, max_fields=4)
        except (HTTPException, ValueError, LookupError):  # whatever a broken form raises
            return JSONResponse({"error": "This is not a form with one file."}, 400)
        file = next((value for value in form.values() if isinstance(value, UploadFile)), None)
        if file is None:
            return JSONResponse({"error": "This is not a form with one file."}, 400)
        content = await file.read()
        await form.close()
        if len(content) > MAX_BYTES:
            return JSONResponse({"error": f"The file is larger than {MAX_BYTES:,} bytes."}, 413)
        return JSONResponse([str(self.uploads.add(content, file.filename or ""))])

    async def upload_progress(self) -> Response:
        """Say that the upload is done: it is read whole before anything else happens."""
        return Response('data: {"msg": "done"}\n\n', media_type="text/event-stream")

    async def file(self, name: str) -> Response:
        """Return an uploaded picture or an example, for the page to show."""
        path = self.uploads.find(name)
        with contextlib.suppress(OSError):  # a later upload has pushed it out just now
            if path:
                return Response(path.read_bytes(), media_type=mimetypes.guess_type(path)[0])
        return JSONResponse({"error": GONE}, 404)

    async def join(self, request: Request) -> Response:
        """Begin a call of gradio_client, which the gate has checked."""
        fields = await request.json()
        work = self._call_work(fields["data"][0])
        try:
            return JSONResponse({"event_id": self.calls.start(fields["session_hash"], work)})
        except BusyError:
            work.close()
            return _busy()

    async def data(self, session_hash: str = "") -> Response:
        """Stream the answers of such calls."""
        if not self.calls.can_stream(session_hash):
            return JSONResponse({"error": "There is no such call."}, 404)
        return StreamingResponse(self.calls.stream(session_hash), media_type="text/event-stream")

    async def _call_work(self, picture: dict[str, Any] | None) -> dict[str, Any]:
        """Return the part of Gradio's message that says how a call went."""
        path = self.uploads.find(picture["path"]) if picture else None
        try:
            if path is None:
                raise ImageError(GONE if picture else "There is no picture in this request.")
            answer = await self._answer(path.read_bytes)
        except (ImageError, OSError) as refusal:
            sentence = str(refusal) if isinstance(refusal, ImageError) else GONE
            return {"output": {"error": sentence}, "success": False}
        return {"output": {"data": [answer], "is_generating": False}, "success": True}

    async def _answer(self, read: Callable[[], bytes]) -> dict[str, Any]:
        """Return the answer for programs; the picture is read when its turn comes.

        Raises ImageError, and what `read` raises.
        """
        start = time.perf_counter()
        loop = asyncio.get_running_loop()
        answer = await loop.run_in_executor(self._threads, lambda: self.predictor.classify(read()))
        return answer_json(answer, 1000 * (time.perf_counter() - start))

    @contextlib.asynccontextmanager
    async def _lifespan(self, _app: FastAPI) -> AsyncIterator[None]:
        task = asyncio.create_task(self._sweep())
        yield
        task.cancel()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            self.calls.sweep()
            with contextlib.suppress(OSError):  # something else has swept there at the same time
                self.uploads.sweep()


def _busy() -> Response:
    sentence = "Too many pictures are waiting; try again in a second."
    return JSONResponse({"error": sentence}, 503, {"Retry-After": "1"})
