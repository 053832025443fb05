"""The server: page and interface behind the gate, in an environment that opens nothing."""

import contextlib
import ctypes
import os
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.types import ASGIApp

from resnet_cifar100.data.images import MAX_BYTES
from resnet_cifar100.errors import ConfigError
from resnet_cifar100.serve.api import Api
from resnet_cifar100.serve.gate import JOIN, RUN, Gate, InputKind
from resnet_cifar100.serve.predictor import Predictor
from resnet_cifar100.serve.render import HEAD, STYLE
from resnet_cifar100.serve.uploads import Uploads

if TYPE_CHECKING:
    from gradio import Blocks

HONOURED = ("GRADIO_SERVER_NAME", "GRADIO_SERVER_PORT")  # the address, where no flag says it
LISTEN_BACKLOG = 2048


@contextlib.contextmanager
def closed_environment() -> Iterator[Path]:
    """Keep the environment from opening the server, and give it a private folder for uploads.

    Gradio's settings can be changed by variables: to share the page, to serve folders, to let
    visitors edit code. None of those counts here. To be entered before gradio is imported.
    """
    for name in ignored_variables():
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


def create_server(predictor: Predictor, page: "Blocks", folder: Path) -> ASGIApp:
    """Return the ASGI application. `folder` is that which `closed_environment` gives."""
    import gradio as gr

    uploads = Uploads(folder)  # after the page: its examples lie there too
    app = Api(predictor, uploads).create_app()
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
        css=STYLE,
        head=HEAD,
    )
    inputs: dict[str, dict[int, list[InputKind]]] = {RUN: {}, JOIN: {}}
    for number, function in page.fns.items():
        inputs[JOIN if function.queue else RUN][number] = [
            len(one.samples) if isinstance(one, gr.Dataset) else "picture"
            for one in function.inputs
        ]
    return Gate(app, uploads, inputs)


def run_server(
    create: "Callable[[Path], ASGIApp]", host: str, port: int, say: Callable[[str], None]
) -> None:
    """Serve until Ctrl-C or SIGTERM.

    Raises:
        ConfigError: for an address that cannot be had.
    """
    import uvicorn

    with contextlib.ExitStack() as stack:
        try:
            listener = stack.enter_context(_listen(host, port))
        except (OSError, UnicodeError) as error:
            raise ConfigError(
                f"--host {host} --port {port} cannot be served ({error}); choose another"
            ) from error
        _share_freed_memory()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler)
        try:
            app = create(stack.enter_context(closed_environment()))
            server = uvicorn.Server(
                uvicorn.Config(
                    app,
                    http="h11",
                    ws="none",
                    log_level="error",  # its warnings are about strangers' requests
                    timeout_keep_alive=10,
                    timeout_graceful_shutdown=3,
                    limit_concurrency=512,
                    server_header=False,
                )
            )
            shown = f"[{host}]" if ":" in host else host
            say(f"http://{shown}:{listener.getsockname()[1]}/ (Ctrl-C stops it)")
            server.run(sockets=[listener])  # stops in order, and then repeats the signal
        except KeyboardInterrupt:
            return


def _share_freed_memory() -> None:
    """Let all threads take memory from two pools, where glibc manages it.

    By default there are eight pools a core, and each keeps what the largest picture in it took.
    """
    m_arena_max = -8
    with contextlib.suppress(OSError, AttributeError):  # no glibc here, nothing to set
        ctypes.CDLL("libc.so.6").mallopt(m_arena_max, 2)


def _listen(host: str, port: int) -> socket.socket:
    """Return a listening socket. Raises OSError.

    asyncio sends small answers at once only where the socket names its protocol, as this does; else
    each waits 40 ms for the visitor's acknowledgement.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, address = found[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(LISTEN_BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener
