import base64
import io
import re

import numpy as np
from PIL import Image

from resnet_cifar100.serve.predictor import Answer, NamedProb
from resnet_cifar100.serve.render import answer_html, answer_json, refusal_html, views_html

PIXELS = np.arange(32 * 32 * 3, dtype=np.uint32).reshape(32, 32, 3).astype(np.uint8)


def answer(doubt: str = "") -> Answer:
    classes = (NamedProb(0, "pickup_truck", "vehicles_1", 0.75), NamedProb(1, "<b>", "&", 0.2))
    return Answer(PIXELS, classes, doubt)


def pictures(html: str) -> list[np.ndarray]:
    codes = re.findall(r"data:image/png;base64,([\w+/=]+)", html)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(code)))) for code in codes]


def test_a_sure_answer_is_named_with_its_probability():
    html = answer_html(answer(), 12.3)
    assert "<h2>pickup truck</h2>" in html
    assert "75% sure" in html
    assert "12 ms" in html
    assert html.count("<li>") == 2


def test_a_doubtful_answer_is_not_given_as_a_name():
    html = answer_html(answer("It is odd."), 1)
    assert "<h2>Not sure</h2>" in html
    assert "It is odd. The nearest is <b>pickup truck</b>" in html


def test_nothing_from_outside_becomes_markup():
    html = answer_html(answer(), 1)
    assert "<div>&lt;b&gt; <span>&amp;</span></div>" in html
    assert "<script>" not in refusal_html("<script>")


def test_what_the_network_sees_is_shown_pixel_by_pixel():
    (seen,) = pictures(views_html(answer(), None))
    assert np.array_equal(seen[3::7, 3::7], PIXELS)


def test_the_heat_map_lies_over_the_picture():
    heat = np.zeros((32, 32), np.float32)
    heat[:, :16] = 1
    html = views_html(answer(), heat)
    seen, overlay = pictures(html)
    assert overlay.shape == seen.shape
    grey = overlay[:, 200].astype(int)
    assert np.abs(grey[:, 0] - grey[:, 2]).max() <= 1  # nothing over the cold side
    assert (overlay[:, 20, 0].astype(int) - overlay[:, 20, 2]).mean() > 30
    assert "Grad-CAM" in html


def test_programs_get_plain_numbers():
    said = answer_json(answer("Odd."), 3.14159)
    assert said["class"] == "pickup_truck"
    assert said["sure"] is False
    assert said["doubt"] == "Odd."
    assert said["classes"][1] == {"class": "<b>", "superclass": "&", "probability": 0.2}
    assert said["milliseconds"] == 3.1
