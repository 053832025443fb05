"""The web page: a picture in, an answer with its reasons out."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components.image import ImageData

from resnet_cifar100.errors import ImageError
from resnet_cifar100.serve.predictor import Answer, Predictor
from resnet_cifar100.serve.render import answer_html, answer_json, refusal_html, views_html

MAX_WAITING = 64  # calls in the page's queue; one more is told to come back
CONCURRENT_CALLS = 8  # of each function; they share one network, in batches
FILE_SECONDS = 60  # how long an uploaded picture is kept, and how often that is looked at

_WAITING = '<div class="answer"><p>The answer comes here.</p></div>'


class PictureInput(gr.Image):  # type: ignore[misc]
    """gr.Image that hands over the uploaded file as it is: data.images alone opens pictures."""

    is_template = True  # the browser side stays that of gr.Image

    def preprocess(self, payload: ImageData | None) -> Path | None:
        """Return the path of the upload."""
        return Path(payload.path) if payload and payload.path else None


def create_page(
    predictor: Predictor, examples: Sequence[Path], examples_note: str, about: str, usage: str
) -> gr.Blocks:
    """Return the page; `about` and `usage` are the Markdown of its second and third tab."""

    def show(upload: Path | None) -> tuple[str, str]:
        if upload is None:
            return _WAITING, ""
        try:
            answer, milliseconds = _classify(predictor, upload)
        except ImageError as refusal:
            return refusal_html(str(refusal)), ""
        return answer_html(answer, milliseconds), views_html(answer, predictor.heatmap(answer))

    def classify(picture: Path | None) -> dict[str, Any]:
        """Return the five most probable classes of a picture, and whether they can be relied on."""
        if picture is None:
            raise gr.Error("There is no picture in this request.", print_exception=False)
        try:
            return answer_json(*_classify(predictor, picture))
        except ImageError as refusal:
            raise gr.Error(str(refusal), print_exception=False) from None

    with gr.Blocks(
        title="CIFAR-100: what is on this picture?",
        analytics_enabled=False,
        delete_cache=(FILE_SECONDS, FILE_SECONDS),
    ) as page:
        gr.Markdown(
            "# What is on this picture?\nA small network, trained from scratch on CIFAR-100."
        )
        with gr.Tab("Try it"), gr.Row():
            with gr.Column(min_width=300, elem_id="left"):
                picture = PictureInput(
                    label="Your picture",
                    sources=["upload", "clipboard", "webcam"],
                    height=320,
                    buttons=[],
                )
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
        picture.change(show, picture, [result, views], api_visibility="private")
        api_button, api_output = gr.Button(visible=False), gr.JSON(visible=False)
        api_button.click(classify, picture, api_output, api_name="classify")
    page.queue(max_size=MAX_WAITING, default_concurrency_limit=CONCURRENT_CALLS)
    return page


def _classify(predictor: Predictor, upload: Path) -> tuple[Answer, float]:
    """Return the answer about an uploaded file, and the milliseconds it took."""
    start = time.perf_counter()
    try:
        content = upload.read_bytes()
    except OSError as error:
        raise ImageError("The picture is not there any more: upload it again.") from error
    answer = predictor.classify(content)
    return answer, 1000 * (time.perf_counter() - start)
