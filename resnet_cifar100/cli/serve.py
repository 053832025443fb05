"""The command that serves the web page."""

import csv
import os
from pathlib import Path
from typing import TYPE_CHECKING

from resnet_cifar100.cli.measure import default_checkpoint
from resnet_cifar100.cli.screen import say
from resnet_cifar100.config import SAMPLES
from resnet_cifar100.errors import ConfigError

if TYPE_CHECKING:
    from starlette.types import ASGIApp

EXAMPLES = 10


def app(
    checkpoint_path: Path | None = None,
    host: str | None = None,
    port: int | None = None,
) -> None:
    """Serve a web page that says what is in a picture.

    Args:
        checkpoint_path: A best_model.pth, .safetensors or .onnx file; by default your own
            checkpoints/best_model.pth, else the weights that come with the repository.
        host: 127.0.0.1 for this machine alone, 0.0.0.0 for everybody who can reach it; by default
            $GRADIO_SERVER_NAME, else 127.0.0.1.
        port: 0 takes any free one; by default $GRADIO_SERVER_PORT, else 7860.
    """
    from resnet_cifar100.serve.networks import open_network
    from resnet_cifar100.serve.predictor import Predictor
    from resnet_cifar100.serve.server import create_server, ignored_variables, run_server
    from resnet_cifar100.serve.texts import USAGE, about

    host = host or os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1")
    flag, named = "--port", str(port)
    if port is None:
        flag, named = "GRADIO_SERVER_PORT", os.environ.get("GRADIO_SERVER_PORT", "7860")
    if not (named.isdecimal() and len(named) <= 5 and int(named) < 2**16):
        raise ConfigError(f"{flag} must be in 0 to 65535, got {named}")
    checkpoint_path = checkpoint_path or default_checkpoint()
    predictor = Predictor(open_network(checkpoint_path))
    if ignored := ignored_variables():
        say(f"Ignored, because such variables could open the server: {', '.join(ignored)}.")

    def create(uploads: Path) -> "ASGIApp":
        from resnet_cifar100.serve.page import create_page  # gradio reads the environment

        card = about(predictor.network.description, checkpoint_path)
        page = create_page(predictor, *_examples(uploads), card, USAGE)
        return create_server(predictor, page, uploads)

    run_server(create, host, int(named), say)


def _examples(folder: Path) -> tuple[list[Path], str]:
    """Return a few pictures to try, and what they are; drawn into `folder` where there are none."""
    if (SAMPLES / "index.csv").exists():
        with (SAMPLES / "index.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        rows = [row for row in rows if row.get("file") and row.get("dataset")]  # else not ours
        chosen = [row for row in rows if (SAMPLES / row["file"]).is_file()]
        chosen = chosen[:: max(1, len(chosen) // EXAMPLES)][:EXAMPLES]
        if chosen:
            title = chosen[0]["dataset"]
            return [SAMPLES / row["file"] for row in chosen], f"Pictures of the {title} test set"
    from resnet_cifar100.data.drawings import write_drawings

    (folder / "examples").mkdir()
    return write_drawings(folder / "examples"), "Drawn by this program, not photographs"
