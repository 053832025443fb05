"""The web page: a picture in, an answer with its reasons out."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.data_classes import FileData

from resnet_cifar100.errors import ImageError
from resnet_cifar100.markdown import plain
from resnet_cifar100.serve.predictor import Predictor
from resnet_cifar100.serve.render import answer_html, refusal_html, views_html
from resnet_cifar100.serve.uploads import GONE

_WAITING = '<div class="answer"><p>The answer comes here.</p></div>'


def create_page(
    predictor: Predictor, examples: Sequence[Path], examples_note: str, about: str, usage: str
) -> gr.Blocks:
    """Return the page; `about` and `usage` are the Markdown of its second and third tab."""

    def show(picture: Path | None) -> tuple[str, str]:
        if picture is None:
            return _WAITING, ""
        start = time.perf_counter()
        try:
            answer = predictor.classify(picture.read_bytes())
        except OSError:
            return refusal_html(GONE), ""
        except ImageError as refusal:
            return refusal_html(str(refusal)), ""
        html = answer_html(answer, 1000 * (time.perf_counter() - start))
        return html, views_html(answer, predictor.heatmap(answer))

    def classify(picture: Path) -> dict[str, Any]:
        """Name what is in a picture: the five most probable classes, and whether to rely on it."""
        raise NotImplementedError("serve/api.py answers these calls")

    title = "What is in this picture?"
    page: gr.Blocks
    with gr.Blocks(title=title, analytics_enabled=False) as page:
        data = predictor.network.description["provenance"]["dataset"]  # it may be SYNTHETIC
        gr.Markdown(f"# {title}\nA small network, trained from scratch on {plain(data)}.")
        with gr.Tab("Try it"), gr.Row():
            with gr.Column(min_width=300, elem_id="left"):
                picture = gr.Image(
                    label="Your picture",
                    sources=["upload", "clipboard", "webcam"],
                    height=320,
                    buttons=[],
                )
                # Gradio would decode the file, of any format and with its own errors.
                setattr(picture, "preprocess", _path_of)  # noqa: B010
                picture.temp_files = _NoList()
                gr.Examples(
                    [[str(path)] for path in examples],
                    picture,
                    label=examples_note,
                    elem_id="examples",
                    cache_examples=False,
                    api_visibility="private",
                )
            with gr.Column(min_width=300, elem_id="right"):
                result = gr.HTML(_WAITING)
                views = gr.HTML()
        with gr.Tab("The model"):
            gr.Markdown(about)
        with gr.Tab("For programs"):
            gr.Markdown(usage)
        picture.change(show, picture, [result, views], queue=False, api_visibility="private")
        # For gradio_client, which learns from the page how to ask; serve/api.py answers.
        button, answer = gr.Button(visible=False), gr.JSON(visible=False)
        button.click(classify, picture, answer, api_name="classify")
    return page


class _NoList(set[str]):
    """Gradio lists every file that it has seen, for ever; here the uploads sweep themselves."""

    def add(self, _path: str) -> None:
        """Forget it."""


def _path_of(payload: FileData | None) -> Path | None:
    return Path(payload.path) if payload and payload.path else None
