"""The server: the page, POST /classify for programs, GET /health, and the gate around them."""

import asyncio
import contextlib
import os
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from resnet_cifar100.data.images import MAX_BYTES
from resnet_cifar100.errors import ConfigError, ImageError
from resnet_cifar100.serve.predictor import Predictor
from resnet_cifar100.serve.render import HEAD, STYLE, answer_json

if TYPE_CHECKING:
    from fastapi import FastAPI
    from gradio import Blocks
    from starlette.types import ASGIApp

    from resnet_cifar100.serve.gate import InputKind

HONOURED = ("GRADIO_SERVER_NAME", "GRADIO_SERVER_PORT")  # the address; flags come first
MAX_REQUESTS = 64  # of POST /classify at a time; one more is told to come back
THREADS = 8


@contextlib.contextmanager
def closed_environment() -> Iterator[Path]:
    """Keep the environment from opening the server, and give it a private folder for uploads.

    Gradio's settings can be changed by variables: to share the page, to serve folders, to let
    visitors edit code. None of those counts here. To be entered before gradio is imported.
    """
    for name in [name for name in os.environ if name.startswith("GRADIO_")]:
        if name not in HONOURED:
            del os.environ[name]
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    with tempfile.TemporaryDirectory(prefix="uploads-", ignore_cleanup_errors=True) as folder:
        os.environ["GRADIO_TEMP_DIR"] = str(Path(folder).resolve())
        yield Path(folder).resolve()


def ignored_variables() -> list[str]:
    """Return the names of those that `closed_environment` will remove."""
    return sorted(
        name for name in os.environ if name.startswith("GRADIO_") and name not in HONOURED
    )


def create_server(predictor: Predictor, page: "Blocks", uploads: Path) -> "ASGIApp":
    """Return the ASGI application. `uploads` is the folder that `closed_environment` gives."""
    import gradio as gr

    from resnet_cifar100.serve.gate import Gate
    from resnet_cifar100.serve.page import PictureInput

    app = _create_api(predictor)
    gr.mount_gradio_app(
        app,
        page,
        path="/",
        allowed_paths=[],
        show_error=False,
        max_file_size=MAX_BYTES,
        enable_monitoring=False,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
        run_history=False,
        footer_links=[],
        theme=gr.themes.Default(),
        css=STYLE,
        head=HEAD,
    )
    inputs: dict[int, list[InputKind]] = {
        number: [
            "picture" if isinstance(one, PictureInput) else len(one.samples)
            for one in function.inputs
        ]
        for number, function in page.fns.items()
    }
    classify = next(number for number, one in page.fns.items() if one.api_name == "classify")
    return Gate(app, uploads, inputs, classify)


def _create_api(predictor: Predictor) -> "FastAPI":
    """Return what is for programs: POST /classify and GET /health."""
    from fastapi import FastAPI, Request
    from fastapi.responses import JSONResponse

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    threads = asyncio.Semaphore(THREADS)
    busy = 0

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.post("/classify")
    async def classify(request: Request) -> JSONResponse:
        nonlocal busy
        if busy >= MAX_REQUESTS:
            sentence = "Too many pictures are waiting; try again in a second."
            return JSONResponse({"error": sentence}, 503, {"Retry-After": "1"})
        busy += 1
        start = time.perf_counter()
        try:
            content = await request.body()
            async with threads:
                answer = await asyncio.to_thread(predictor.classify, content)
        except ImageError as refusal:
            return JSONResponse({"error": str(refusal)}, 422)
        finally:
            busy -= 1
        return JSONResponse(answer_json(answer, 1000 * (time.perf_counter() - start)))

    return app


def run_server(
    app_in: "Callable[[Path], ASGIApp]", host: str, port: int, say: Callable[[str], None]
) -> None:
    """Serve until Ctrl-C or SIGTERM.

    Raises:
        ConfigError: for an address that cannot be had.
    """
    import uvicorn

    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(contextlib.closing(socket.socket()))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except (OSError, OverflowError) as error:
            raise ConfigError(
                f"--host {host} --port {port} cannot be served ({error}); choose another port"
            ) from error
        app = app_in(stack.enter_context(closed_environment()))
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                log_level="warning",
                timeout_keep_alive=10,
                timeout_graceful_shutdown=3,
                limit_concurrency=512,
                server_header=False,
            )
        )
        say(f"http://{host}:{listener.getsockname()[1]}/ (Ctrl-C stops it)")
        for number in (signal.SIGINT, signal.SIGTERM):  # uvicorn stops in order, then repeats it
            signal.signal(number, lambda *_: None)
        server.run(sockets=[listener])
