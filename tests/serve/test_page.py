"""The page in a real browser. Needs Chromium (on Debian: apt install chromium) or Chrome.

SCREENSHOTS=FOLDER keeps what the tests see.
"""

import os
import shutil
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")
PATIENCE_MS = 15_000  # of what is expected on a page
COPY = """async bytes => navigator.clipboard.write([new ClipboardItem(
    {"image/png": new Blob([new Uint8Array(bytes)], {type: "image/png"})})])"""
FLAGS = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        expect.set_options(timeout=PATIENCE_MS)
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser: Browser, server):
    """Open the page with settings of the browser; at the end see that it asked nobody else."""
    opened, foreign, faults = [], [], []

    def open_page(**settings) -> Page:
        context = browser.new_context(locale="en-US", **settings)
        opened.append(context)
        page = context.new_page()
        page.on("request", lambda one: foreign.append(one.url) if is_foreign(one.url) else None)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda one: faults.append(one.text) if one.type == "error" else None)
        page.goto(server.url)
        expect(page.get_by_text("The answer comes here.")).to_be_visible()
        return page

    def is_foreign(url: str) -> bool:
        return not url.startswith((server.url, "data:", "blob:"))

    yield open_page
    for context in opened:
        context.close()
    assert not foreign
    assert not faults


@pytest.fixture
def screenshot():
    """Return what takes a picture for a person, where $SCREENSHOTS names a folder."""

    def take(page: Page, name: str) -> None:
        if folder := os.environ.get("SCREENSHOTS"):
            page.wait_for_timeout(400)  # let what moves come to rest
            page.screenshot(path=Path(folder, f"{name}.png"))

    return take


def upload(page: Page, path: Path) -> None:
    page.locator("input[type=file]").first.set_input_files(path)


def verdict(page: Page):
    return page.locator(".answer h2")


def test_an_uploaded_picture_is_named(visit, drawings, screenshot):
    page = visit(viewport={"width": 1280, "height": 900})
    upload(page, drawings["sunflower"])
    expect(verdict(page)).to_have_text("sunflower")
    expect(page.locator(".answer li")).to_have_count(5)
    expect(page.get_by_alt_text("What the network sees: 32 x 32 pixels")).to_be_visible()
    expect(page.get_by_alt_text("Grad-CAM")).to_be_visible()
    screenshot(page, "desktop")


def test_a_picture_is_pasted(visit, drawings, screenshot):
    page = visit(permissions=["clipboard-read", "clipboard-write"])
    page.evaluate(COPY, list(drawings["orange"].read_bytes()))
    page.get_by_label("Paste from clipboard").click()
    expect(verdict(page)).to_have_text("orange")
    screenshot(page, "paste")


def test_a_picture_is_taken_with_the_camera(visit, screenshot):
    page = visit(permissions=["camera"])
    page.get_by_label("Capture from camera").click()
    page.get_by_text("Click to Access Webcam").click()
    page.wait_for_function("document.querySelector('video')?.readyState >= 3")
    page.get_by_label("capture photo").click()
    expect(verdict(page)).to_be_visible()
    expect(verdict(page)).not_to_have_text("That did not work")
    screenshot(page, "camera")


def test_an_example_is_tried(visit, screenshot):
    page = visit()
    page.locator(".gallery button, button.gallery-item").first.click()
    expect(verdict(page)).to_be_visible()
    expect(verdict(page)).not_to_have_text("That did not work")
    screenshot(page, "example")


def test_a_refusal_is_one_sentence(visit, tmp_path, screenshot):
    page = visit()
    bad = tmp_path / "picture.png"
    bad.write_bytes(b"this is no picture")
    upload(page, bad)
    expect(verdict(page)).to_have_text("That did not work")
    expect(page.get_by_text("is not a PNG, JPEG, WebP, GIF, TIFF or plain BMP")).to_be_visible()
    screenshot(page, "refusal")


def test_a_picture_of_nothing_gets_no_name(visit, drawings, screenshot):
    page = visit()
    upload(page, drawings["letters"])
    expect(verdict(page)).to_have_text("Not sure")
    screenshot(page, "not-sure")


def test_a_phone_shows_it_all_without_scrolling_sideways(visit, drawings, screenshot):
    page = visit(viewport={"width": 390, "height": 844}, device_scale_factor=2, is_mobile=True)
    upload(page, drawings["apple"])
    expect(verdict(page)).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    screenshot(page, "phone")
    verdict(page).scroll_into_view_if_needed()
    screenshot(page, "phone-answer")


def test_it_is_dark_where_the_visitor_wants_it_dark(visit, drawings, screenshot):
    page = visit(color_scheme="dark")
    upload(page, drawings["sea"])
    expect(verdict(page)).to_have_text("sea")
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert max(int(part) for part in colour.strip("rgba()").split(",")[:3]) < 80
    screenshot(page, "dark")


def test_the_keyboard_is_enough(visit, drawings):
    page = visit()
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("!!document.activeElement.closest('.gallery, .gallery-item')"):
            break
    page.keyboard.press("Enter")
    expect(verdict(page)).to_be_visible()


def test_the_model_and_the_interface_for_programs_are_explained(visit, screenshot):
    page = visit(viewport={"width": 1280, "height": 1400})
    page.get_by_role("tab", name="The model").click()
    expect(page.get_by_text("What it cannot do")).to_be_visible()
    expect(page.get_by_text("75.9")).to_be_visible()
    screenshot(page, "model")
    page.get_by_role("tab", name="For programs").click()
    expect(page.get_by_text("curl --data-binary").first).to_be_visible()
    screenshot(page, "programs")
