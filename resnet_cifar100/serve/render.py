"""Answers as fragments of HTML and as JSON."""

import base64
import io
from html import escape
from typing import Any

import numpy as np
from PIL import Image

from resnet_cifar100.constants import IMAGE_SIZE
from resnet_cifar100.serve.predictor import Answer

ENLARGED = 7 * IMAGE_SIZE  # pixels on a side of the pictures under "What the network sees"

STYLE = """
.answer { font-size: 1rem; }
.answer h2 { margin: 0 0 .25rem; font-size: 1.5rem; line-height: 1.2; }
.answer p { margin: 0 0 .75rem; }
.answer .doubt { border-left: 4px solid #d97706; padding-left: .75rem; }
.answer ol { list-style: none; margin: 0; padding: 0; }
.answer li { display: grid; grid-template-columns: 1fr auto; gap: 0 .75rem; margin-bottom: .6rem; }
.answer li span { opacity: .7; font-size: .85em; }
.answer li b { font-variant-numeric: tabular-nums; }
.answer .track { grid-column: 1 / -1; height: .5rem; border-radius: .25rem;
  background: var(--border-color-primary); overflow: hidden; }
.answer .bar { height: 100%; border-radius: .25rem; background: #2563eb; }
.answer .doubtful .bar { background: #d97706; }
.answer .foot { opacity: .7; font-size: .85em; margin: .5rem 0 0; }
.views { display: flex; flex-wrap: wrap; gap: 1rem; }
.views figure { margin: 0; flex: 1 1 8rem; max-width: 224px; }
.views img { width: 100%; height: auto; image-rendering: pixelated; border-radius: .5rem; }
.views figcaption { opacity: .7; font-size: .85em; }
@media (max-width: 640px) {  /* on a phone the answer comes before the examples */
  #left { display: contents; }
  #right { order: 1; }
  #examples { order: 2; }
}
"""

# A browser cannot show every file that the network can read (TIFF), and none that is refused.
HEAD = """<script>
for (const [event, visibility] of [["error", "hidden"], ["load", "visible"]])
  document.addEventListener(event, ({ target }) => {
    if (target.tagName === "IMG") target.style.visibility = visibility;
  }, true);
</script>"""


def answer_html(answer: Answer, milliseconds: float) -> str:
    """Return the verdict and the most probable classes as bars."""
    best = answer.classes[0]
    if answer.doubt:
        guess = f"{escape(answer.doubt)} The nearest is <b>{escape(_words(best.name))}</b>."
        verdict = f'<h2>Not sure</h2><p class="doubt">{guess}</p>'
    else:
        verdict = (
            f"<h2>{escape(_words(best.name))}</h2><p>{best.prob:.0%} sure. "
            f"Superclass: {escape(_words(best.superclass))}.</p>"
        )
    rows = "".join(
        f"<li><div>{escape(_words(one.name))} <span>{escape(_words(one.superclass))}</span></div>"
        f'<b>{one.prob:.1%}</b><div class="track" aria-hidden="true">'
        f'<div class="bar" style="width:{100 * one.prob:.1f}%"></div></div></li>'
        for one in answer.classes
    )
    kind = "doubtful" if answer.doubt else "sure"
    return (
        f'<div class="answer" role="status">{verdict}<ol class="{kind}">{rows}</ol>'
        f'<p class="foot">{milliseconds:.0f} ms</p></div>'
    )


def refusal_html(sentence: str) -> str:
    """Return why a picture is refused."""
    return (
        '<div class="answer" role="alert"><h2>That did not work</h2>'
        f'<p class="doubt">{escape(sentence)}</p></div>'
    )


def views_html(answer: Answer, heatmap: np.ndarray | None) -> str:
    """Return the 32x32 pixels that the network saw, enlarged, and where it looked."""
    figures = _figure(
        Image.fromarray(answer.pixels).resize((ENLARGED, ENLARGED), Image.Resampling.NEAREST),
        "What the network sees: 32 x 32 pixels",
    )
    if heatmap is not None:
        name = _words(answer.classes[0].name)
        figures += _figure(_overlay(answer.pixels, heatmap), f"Where it sees: {name} (Grad-CAM)")
    return f'<div class="views">{figures}</div>'


def answer_json(answer: Answer, milliseconds: float) -> dict[str, Any]:
    """Return an answer for programs; docs/web.md explains the keys."""
    return {
        "class": answer.classes[0].name,
        "probability": round(answer.classes[0].prob, 4),
        "sure": not answer.doubt,
        "doubt": answer.doubt,
        "classes": [
            {"class": one.name, "superclass": one.superclass, "probability": round(one.prob, 4)}
            for one in answer.classes
        ],
        "milliseconds": round(milliseconds, 1),
    }


def _words(name: str) -> str:
    return name.replace("_", " ")


def _figure(image: Image.Image, caption: str) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    data = base64.b64encode(buffer.getvalue()).decode()
    text = escape(caption)
    source = f"data:image/png;base64,{data}"
    return f'<figure><img src="{source}" alt="{text}"><figcaption>{text}</figcaption></figure>'


def _overlay(pixels: np.ndarray, heatmap: np.ndarray) -> Image.Image:
    """Return the picture in grey with the heat map over it, enlarged."""
    from matplotlib import colormaps  # ONNX files have no heat maps, and do without it

    size = (ENLARGED, ENLARGED)
    grey = Image.fromarray(pixels).convert("L").resize(size, Image.Resampling.NEAREST)
    heat = Image.fromarray(heatmap.astype(np.float32)).resize(size, Image.Resampling.BICUBIC)
    strength = np.clip(np.asarray(heat), 0, 1)[..., None]  # (224,224,1)
    colours = colormaps["inferno"](strength[..., 0])[..., :3] * 255
    mixed = np.asarray(grey, np.float32)[..., None] * (1 - 0.65 * strength)
    return Image.fromarray((mixed + 0.65 * strength * colours).clip(0, 255).astype(np.uint8))
