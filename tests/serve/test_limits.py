"""What docs/web.md promises of a public server, as numbers: a change of one is a decision."""

import asyncio
import os
import time

import pytest

from resnet_cifar100.cli import serve
from resnet_cifar100.data import images
from resnet_cifar100.serve import api, calls, gate, predictor, uploads
from resnet_cifar100.serve.uploads import Uploads
from tests.conftest import REPOSITORY

PAGE = (REPOSITORY / "docs/web.md").read_text()


@pytest.mark.parametrize(
    ("limit", "sentence"),
    [
        (images.MAX_BYTES / 1e6, "{:.0f} MB and 20 s each"),
        (gate.BODY_SECONDS, "5 MB and {:.0f} s each"),
        (gate.MAX_BODIES / 1e6, "{:.0f} MB together"),
        (gate.MAX_JSON / 1e3, "calls {:.0f} kB"),
        (api.MAX_WAITING, "at most {} `/classify` requests"),
        (calls.MOST_UNFINISHED, "and {} calls of Gradio's client"),
        (uploads.MOST, "the newest {}, each for a minute"),
        (predictor.REMEMBERED, "the answers to the last {:,} pictures"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_limit_is_the_documented_one(limit, sentence):
    assert sentence.format(limit) in " ".join(PAGE.split())


def test_eight_threads_work_and_a_request_is_little_more_than_a_picture():
    assert api.THREADS == 8
    assert "eight are worked on" in PAGE
    assert uploads.SECONDS == 60
    assert images.MAX_BYTES < gate.MAX_BODY < 1.01 * images.MAX_BYTES


def test_the_page_may_load_and_call_nothing_from_elsewhere():
    policy = gate._HEADERS_OUT["Content-Security-Policy"]
    rules = {rule.split()[0]: rule.split()[1:] for rule in policy.split("; ")}
    assert rules["default-src"] == ["'self'"]
    assert rules["object-src"] == ["'none'"]
    allowed = {"'self'", "'none'", "data:", "blob:", "'unsafe-inline'", "'unsafe-eval'"}
    assert {source for sources in rules.values() for source in sources} == allowed


def test_what_is_over_is_swept_while_the_server_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(api, "SWEEP_SECONDS", 0.01)
    kept = Uploads(tmp_path)
    old, new = kept.add(b"old", "a.png"), kept.add(b"new", "b.png")
    os.utime(old, (time.time() - 2 * uploads.SECONDS,) * 2)
    server = api.Api(None, kept)
    swept = []
    monkeypatch.setattr(server.calls, "sweep", lambda: swept.append(1))

    async def run():
        async with server._lifespan(None):
            while old.exists() or len(swept) < 2:
                await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(run(), 30))
    assert new.exists()


def test_the_pictures_to_try_are_of_the_test_set_where_they_have_been_written(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    drawn, title = serve._examples(tmp_path)
    assert len(drawn) == 8
    assert all(path.is_file() and path.is_relative_to(tmp_path / "examples") for path in drawn)
    assert title == "Drawn by this program, not photographs"
    serve.SAMPLES.mkdir(parents=True)
    for foreign in ("", "name,label\na.png,3\n", "file\na.png\n", "file,dataset\n,\n"):
        (serve.SAMPLES / "index.csv").write_text(foreign)
        (tmp_path / "examples").rename(tmp_path / f"before{len(foreign)}")
        assert serve._examples(tmp_path)[1] == title
    rows = [f"{number:02}.png,CIFAR-100" for number in range(100)]
    (serve.SAMPLES / "index.csv").write_text("file,dataset\n" + "\n".join(rows))
    (tmp_path / "examples").rename(tmp_path / "before")
    assert serve._examples(tmp_path)[1] == title  # a list of files that are not there
    for number in range(2, 100):
        (serve.SAMPLES / f"{number:02}.png").touch()
    chosen, title = serve._examples(tmp_path / "unused")
    assert len({*chosen}) == serve.EXAMPLES
    assert all(path.is_file() for path in chosen)
    assert title == "Pictures of the CIFAR-100 test set"
