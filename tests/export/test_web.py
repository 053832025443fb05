"""The page for a browser, opened as a file. Needs npm, and Chromium as the page of the app does."""

import base64
import hashlib
import io
import json
import re
import shutil
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from resnet_cifar100.bundle import describe
from resnet_cifar100.data.images import load_image
from resnet_cifar100.errors import CheckpointError, ExportError
from resnet_cifar100.export.shrink import save_small
from resnet_cifar100.export.web import fetch_runtime, save_page
from resnet_cifar100.serve.networks import open_network
from resnet_cifar100.serve.predictor import LEAST_PROB, Predictor
from resnet_cifar100.serve.render import answer_html
from tests.conftest import REPOSITORY
from tests.serve import conftest, test_page

browser, screenshot, drawings = test_page.browser, test_page.screenshot, conftest.drawings
in_browser = pytest.mark.skipif(
    not (test_page.CHROMIUM and shutil.which("npm")), reason="there is no Chromium or no npm here"
)
DESKTOP, PHONE = {"width": 1200, "height": 900}, {"width": 390, "height": 844}
NOISE = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
VERDICT, SENTENCE = "#verdict h2", "#verdict p"
HOSTILE = "</script><b>bold --><!--<script>"
DROP = """files => {
    const dataTransfer = new DataTransfer();
    for (const bytes of files) dataTransfer.items.add(new File([new Uint8Array(bytes)], "it.png"));
    document.body.dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true }));
}"""


@pytest.fixture(scope="module")
def network(shipped_onnx, tmp_path_factory) -> Path:
    """The shipped network as small as a page has it."""
    path = tmp_path_factory.mktemp("exports") / "small.onnx"
    save_small(shipped_onnx, path, 7_500_000)
    return path


@pytest.fixture(scope="module")
def web_page(shipped, network, runtime) -> Path:
    path = network.with_name("index.html")
    save_page(path, network.read_bytes(), describe(shipped), runtime, LEAST_PROB)
    return path


@pytest.fixture
def visit(browser: Browser, web_page):
    """Open the page with settings of the browser; at the end see that it asked for nothing."""
    opened, requests, faults = [], [], []

    def open_page(path: Path = web_page, state: str = "ready", script="", **settings) -> Page:
        page = browser.new_page(locale="en-US", **settings)
        opened.append(page)
        page.add_init_script(script)
        page.on("request", lambda one: requests.append(one.url))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda one: faults.append(one.text))
        page.goto(path.as_uri())
        expect(page.locator("html")).to_have_attribute("data-state", state)
        return page

    yield open_page
    visited = [page.url for page in opened]
    for page in opened:
        page.close()
    assert [url for url in requests if not url.startswith(("data:", "blob:"))] == visited
    assert not faults


@pytest.fixture
def small_runtime(tmp_path) -> Path:
    """What `fetch_runtime` leaves, but tiny and not of npm."""
    script = "const a=1;export{a as Tensor};//# sourceMappingURL=x.map"
    (tmp_path / "ort.wasm.bundle.min.mjs").write_text(script)
    for name in ("ort-wasm-simd-threaded.wasm", "LICENSE", "ThirdPartyNotices.txt"):
        (tmp_path / name).write_text(name)
    return tmp_path


def upload(page: Page, *paths: Path) -> None:
    """Choose files and wait for the answer to the last of them."""
    before = page.locator("#history li").count()
    page.set_input_files("#files", paths)
    expect(page.locator("#history li")).to_have_count(before + len(paths))


def seen(page: Page) -> np.ndarray:
    """Return what the page shows as seen by the network, (32,32,3)."""
    address = page.locator("#pixels").evaluate("canvas => canvas.toDataURL()")
    content = base64.b64decode(address.partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def test_a_page_holds_its_parts_whole_and_allows_no_other_script(shipped, small_runtime):
    description = {**describe(shipped), "fine_names": [HOSTILE] * 100}
    for name in ("one", "two"):
        save_page(small_runtime / name, b"network", description, small_runtime, LEAST_PROB)
    html = (small_runtime / "one").read_text()
    assert html == (small_runtime / "two").read_text()
    parts = re.findall(r"<(style|script)([^>]*)>(.*?)</\1", html, re.DOTALL)
    style, facts, _, _, script, page = (text for *_, text in parts)
    assert json.loads(facts)["fine_names"] == [HOSTILE] * 100
    assert script == "const a=1;globalThis.ort={Tensor:a};"
    for text in (style, script, page):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in html
    with pytest.raises(CheckpointError, match="cannot be written"):
        save_page(small_runtime / "one" / "x", b"", description, small_runtime, LEAST_PROB)


@pytest.mark.parametrize(
    ("npm", "sentence"),
    [
        ("", "needs npm, to get onnxruntime-web@"),
        ("exit 1", "npm cannot get onnxruntime-web@.*: check the network"),
        ('echo damaged > "$5/onnxruntime-web.tgz"', "its SHA-512 does not match"),
    ],
)
def test_a_runtime_that_cannot_be_had_is_one_sentence(tmp_path, monkeypatch, npm, sentence):
    (tmp_path / "npm").write_text(f"#!/bin/sh\n{npm}\n")
    (tmp_path / "npm").chmod(0o755 if npm else 0o644)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ExportError, match=sentence):
        fetch_runtime(tmp_path / "runtime")
    assert not (tmp_path / "runtime").exists()


@in_browser
def test_an_example_is_answered_by_keyboard_without_a_connection(visit, screenshot):
    page = visit(viewport=DESKTOP, color_scheme="light")
    page.context.set_offline(True)
    for key in ("Tab", "Tab", "Tab", "Enter"):  # past two buttons, to the first drawing
        page.keyboard.press(key)
    expect(page.get_by_role("status")).to_contain_text("% sure. Superclass: flowers.")
    expect(page.locator(VERDICT)).to_have_text("sunflower")
    expect(page.locator("#classes li")).to_contain_text(["sunflower flowers", *[""] * 4])
    expect(page.locator("#time")).to_have_text(re.compile(r"^\d+ ms: picture \d+, network \d+$"))
    screenshot(page, "web-desktop")


@in_browser
def test_a_static_host_is_asked_for_the_page_alone_and_no_other_can_be(browser, web_page):
    asked, page = [], browser.new_page()
    page.route(
        "**/*", lambda route: (asked.append(route.request.url), route.fulfill(path=web_page))
    )
    page.goto("https://pictures.example/index.html")
    expect(page.locator("html")).to_have_attribute("data-state", "ready")
    assert page.evaluate("fetch('https://example.com/').then(() => 'sent', () => '')") == ""
    page.close()
    assert asked == ["https://pictures.example/index.html"]


@in_browser
def test_it_says_what_the_server_says(visit, network, drawings, tmp_path):
    predictor, page = Predictor(open_network(network)), visit()
    pictures = {name: Image.open(path) for name, path in drawings.items() if name != "rocket"}
    pictures |= {"noise": Image.fromarray(NOISE), "teal": Image.new("RGB", (32, 32), "teal")}
    for name, picture in pictures.items():
        path = tmp_path / f"{name}.png"
        picture.resize((32, 32)).save(path)
        upload(page, path)
        answer = predictor.classify(path)
        assert (seen(page) == answer.pixels).all()  # and so these arrive bit for bit
        shown = page.locator("#answer").evaluate("answer => ({ ...answer.dataset })")
        assert shown["label"] == str(answer.classes[0].label)
        assert float(shown["probability"]) == pytest.approx(answer.classes[0].prob, abs=0.01)
        said = re.search(r"<h2>(.*?)</h2><p[^>]*>(.*?)</p>", answer_html(answer, 0)).groups()
        title, words = (unescape(re.sub("<[^>]*>", "", one)) for one in said)
        expect(page.locator(VERDICT)).to_have_text(title)
        expect(page.locator(SENTENCE)).to_contain_text(re.sub(r"^\d+", "", words))


@in_browser
def test_a_picture_is_cut_turned_and_put_on_white_as_on_the_server(visit, drawings, tmp_path):
    page, picture, turned = visit(), Image.open(drawings["rocket"]), Image.Exif()
    turned[274] = 6  # orientation: a quarter turn
    wide = picture.resize((301, 180))
    wide.save(tmp_path / "wide.png")
    wide.save(tmp_path / "turned.jpg", exif=turned, quality=95)
    wide.resize((40, 1500)).save(tmp_path / "high.png")
    picture.resize((3000, 2000)).save(tmp_path / "large.jpg", quality=95)
    picture.putalpha(Image.linear_gradient("L"))
    picture.save(tmp_path / "clear.png")
    Image.fromarray(NOISE[:1, :1]).save(tmp_path / "dot.png")
    for path in sorted(tmp_path.glob("*.*")):
        upload(page, path)
        difference = np.abs(seen(page).astype(int) - load_image(path))
        assert (difference.mean() < 1, difference.max() < 16) == (True, True), path.name


@in_browser
def test_several_pictures_are_answered_in_turn(visit, drawings):
    page = visit()
    upload(page, drawings["apple"], REPOSITORY / "README.md", drawings["sea"])
    expect(page.locator(VERDICT)).to_have_text("sea")
    rows = page.locator("#history li")
    expect(rows).to_have_text([re.compile("^sea "), re.compile("README.md$"), re.compile("apple")])
    rows.nth(2).get_by_role("button").click()
    expect(page.locator(VERDICT)).to_have_text("apple")
    expect(page.locator("#history [aria-current=true]")).to_contain_text("apple")


@in_browser
def test_a_picture_is_pasted_dropped_and_taken_with_the_camera(visit, drawings):
    page = visit(permissions=["clipboard-read", "clipboard-write", "camera"])
    page.evaluate(test_page.COPY, list(drawings["orange"].read_bytes()))
    page.keyboard.press("Control+V")
    expect(page.locator(VERDICT)).to_have_text("orange")
    page.evaluate(DROP, [list(drawings["sea"].read_bytes())])
    expect(page.locator(VERDICT)).to_have_text("sea")
    page.evaluate(DROP, [])  # a picture dragged from another page is only an address
    expect(page.locator(SENTENCE)).to_contain_text("Only files can be dropped here")
    camera = page.get_by_role("button", name="Use camera")
    camera.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Take picture")).to_be_focused()
    page.keyboard.press("Escape")
    expect(camera).to_be_focused()  # not lost to the page, for who has no mouse
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Take picture").click()
    expect(page.locator("#answer")).to_have_attribute("data-label", re.compile(r"\d+"))
    assert page.evaluate("document.querySelector('video').srcObject === null")
    expect(page.get_by_role("dialog")).to_be_hidden()


@in_browser
def test_a_refusal_is_one_sentence(visit, tmp_path, screenshot):
    page = visit(viewport=PHONE, color_scheme="dark")
    Image.new("1", (5001, 5000)).save(tmp_path / "vast.png")
    (tmp_path / "heavy.png").write_bytes(bytes(20_000_001))
    (tmp_path / "drawn.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')
    for name, why in {
        "vast.png": "has more than 25 megapixels; make it smaller first.",
        "heavy.png": "is larger than 20 MB; make it smaller first.",
        "drawn.svg": "is no picture that this browser can read; save it as PNG or JPEG first.",
    }.items():
        upload(page, tmp_path / name)
        expect(page.locator(VERDICT)).to_have_text("That did not work")
        expect(page.locator(SENTENCE)).to_have_text(f"{name} {why}")
        assert page.locator("#answer").get_attribute("data-label") is None
    screenshot(page, "web-refusal")


@in_browser
def test_a_phone_in_the_dark_shows_it_all_and_nothing_jumps(visit, drawings, screenshot):
    page = visit(viewport=PHONE, device_scale_factor=2, color_scheme="dark")
    box = page.locator("#answer").bounding_box()
    for name, heading in {"sunflower": "sunflower", "letters": "Not sure"}.items():
        upload(page, drawings[name])
        expect(page.locator(VERDICT)).to_have_text(heading)
        assert page.locator("#answer").bounding_box() == box
        screenshot(page, f"web-phone-{name}")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    sizes = [button.bounding_box() for button in page.get_by_role("button").all()]
    assert min(min(size["width"], size["height"]) for size in sizes) >= 44
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert max(int(part) for part in colour.strip("rgba()").split(",")[:3]) < 80


@in_browser
def test_a_browser_that_cannot_run_it_says_so(visit):
    page = visit(state="failed", script="delete globalThis.WebAssembly")
    expect(page.locator(VERDICT)).to_have_text("The network does not run here")
    expect(page.get_by_role("button", name="Choose pictures")).to_be_disabled()


@in_browser
def test_names_are_only_ever_text_and_drawn_data_is_called_so(visit, shipped, network, runtime):
    description, path = describe(shipped), network.with_name("hostile.html")
    description["fine_names"] = description["coarse_names"] = [HOSTILE] * 100
    description["provenance"] = {"dataset": "SYNTHETIC", "metrics": {}}
    save_page(path, network.read_bytes(), description, runtime, LEAST_PROB)
    page = visit(path)
    page.get_by_role("button", name="Drawing: orange").click()
    expect(page.locator(VERDICT)).to_have_text(HOSTILE)
    expect(page.get_by_text("SYNTHETIC: this network knows drawn shapes only.")).to_be_visible()
