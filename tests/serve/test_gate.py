import asyncio
import json
import random
from urllib.parse import quote

import pytest

from resnet_cifar100.serve import gate
from resnet_cifar100.serve.gate import Gate

HASH = "a" * 64


@pytest.fixture
def reached():
    return []


@pytest.fixture
def uploads(tmp_path):
    folder = tmp_path / "uploads"
    (folder / HASH).mkdir(parents=True)
    (folder / HASH / "cat.png").write_bytes(b"picture")
    (tmp_path / "secret").write_text("canary")
    (folder / HASH / "way_out").symlink_to(tmp_path / "secret")
    return folder


@pytest.fixture
def guarded(reached, uploads):
    async def app(scope, receive, send):
        body = (await receive()).get("body") if scope["method"] == "POST" else None
        reached.append((scope["path"], body))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"reached"})

    return Gate(app, uploads, {0: [8], 1: ["picture"], 2: ["picture"]}, classify=2)


def ask(guarded, method, path, parts=(b"",), pause=0.0, **headers):
    """Send a request and return the status, the headers and the body of the answer."""
    sent, messages = [], list(parts)

    async def receive():
        await asyncio.sleep(pause)
        if not messages:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": messages.pop(0), "more_body": bool(messages)}

    async def send(message):
        sent.append(message)

    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": method, "path": path, "headers": pairs}
    asyncio.run(guarded(scope, receive, send))
    head = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], head, b"".join(one.get("body", b"") for one in sent[1:])


def call(guarded, fields, path="/gradio_api/queue/join"):
    body = fields if isinstance(fields, bytes) else json.dumps(fields).encode()
    return ask(guarded, "POST", path, [body])[0]


NEEDED = ["/", "/config", "/health", "/theme.css", "/assets/index-1b2c.js", "/gradio_api/info"]
NEEDED += ["/static/fonts/x/y.woff2", "/gradio_api/queue/data", "/gradio_api/heartbeat/k3j2"]


@pytest.mark.parametrize("path", NEEDED)
def test_what_the_page_needs_passes_with_headers_that_protect_it(guarded, path):
    status, headers, body = ask(guarded, "GET", path)
    assert (status, body) == (200, b"reached")
    assert headers["x-content-type-options"] == "nosniff"
    assert "object-src 'none'" in headers["content-security-policy"]


def test_an_uploaded_picture_is_shown(guarded, uploads):
    assert ask(guarded, "GET", f"/gradio_api/file={uploads}/{HASH}/cat.png")[0] == 200


def traversals(uploads) -> list[str]:
    """300 ways to ask for files that nobody uploaded."""
    targets = [
        "/etc/passwd",
        f"{uploads.parent}/secret",
        "../../secret",
        "~/secret",
        "x/../../.env",
    ]
    targets += [f"{uploads}/../secret", f"{uploads}/{HASH}/../../../secret", "C:\\secret.txt"]
    targets += [f"{uploads}\\..\\secret", f"{uploads}/{HASH}/..\\..\\secret", "file:///etc/passwd"]
    targets += ["http://127.0.0.1:22/", f"{uploads}", f"{uploads}/{HASH}/cat.png\0.txt"]
    targets += [f"/proc/self/cwd{uploads}/secret", f"{uploads}/{HASH}/cat.png/../../../secret"]
    routes = ["/gradio_api/file=", "/gradio_api/file/", "/static/", "/assets/", "/svelte/", "/"]
    routes += ["/file=", "/gradio_api/proxy=", "/gradio_api/stream/", "/custom_component/"]
    plain = [route + target for route in routes for target in targets]
    coded = [route + quote(target, safe="") for route in routes[:5] for target in targets[:12]]
    twice = [route + quote(quote(one, safe="")) for route in routes[:5] for one in targets[:12]]
    return [*plain, *coded, *twice, "/gradio_api/FILE=/etc/passwd", "//etc/passwd", "/..", "/%2e."]


def test_no_file_is_reached_by_any_of_300_paths(guarded, uploads, reached):
    paths = traversals(uploads)
    assert len(paths) >= 280
    random.Random(0).shuffle(paths)
    for path in paths:
        for method in ("GET", "HEAD", "PUT", "DELETE"):
            status, _, body = ask(guarded, method, path)
            assert status == 404, path
            assert b"canary" not in body
    assert not reached


NOT_NEEDED = ["/login", "/monitoring", "/docs", "/openapi.json", "/token", "/runs"]
NOT_NEEDED += ["/gradio_api/dev/reload", "/gradio_api/run/classify", "/gradio_api/vibe-code"]
NOT_NEEDED += ["/gradio_api/component_server", "/gradio_api/deep_link", "/gradio_api/mcp/"]


@pytest.mark.parametrize("path", NOT_NEEDED)
def test_what_the_page_does_not_need_is_not_there(guarded, reached, path):
    for method in ("GET", "POST", "OPTIONS", "PATCH"):
        assert ask(guarded, method, path)[0] == 404
    assert not reached


def test_a_body_that_is_too_long_is_cut_off_early(guarded, reached):
    parts = [bytes(1_000_000)] * 50
    status, _, body = ask(guarded, "POST", "/classify", parts)
    assert status == 413
    assert b"larger" in body
    assert ask(guarded, "POST", "/gradio_api/queue/join", [bytes(30_000)])[0] == 413
    assert not reached


def test_a_body_that_comes_too_slowly_is_given_up(guarded, reached, monkeypatch):
    monkeypatch.setattr(gate, "BODY_SECONDS", 0.1)
    assert ask(guarded, "POST", "/classify", [b"a"] * 9, pause=0.05)[0] == 408
    assert not reached


def test_a_call_reaches_the_page_with_nothing_in_it_but_what_it_needs(guarded, uploads, reached):
    name = f"{uploads}/{HASH}/cat.png"
    file = {"path": name, "url": "http://10.0.0.1/", "is_stream": True, "evil": 1}
    fields = {"fn_index": 1, "data": [file], "session_hash": "s1", "trigger_id": 5, "evil": [1]}
    fields |= {"event_data": {"index": 1}, "batched": True, "request": {}}
    assert call(guarded, fields) == 200
    ((_, body),) = reached
    kept = {"path": name, "orig_name": "picture", "meta": {"_type": "gradio.FileData"}}
    assert json.loads(body) == {
        "data": [kept],
        "event_data": None,
        "fn_index": 1,
        "session_hash": "s1",
        "trigger_id": 5,
    }


NO_UPLOADS = ["x", 7, [], {}, {"path": None}, {"path": 3}, {"path": "/etc/passwd"}, {"path": "\0"}]
NO_UPLOADS += [{"path": "UPLOADS/../secret"}, {"path": f"UPLOADS/{HASH}/way_out"}, {"path": ""}]
NO_UPLOADS += [{"path": "http://127.0.0.1/"}, {"path": f"UPLOADS/{HASH}/gone.png"}]
NO_UPLOADS += [{"url": "data:image/png;base64,AAAA"}, {"path": "UPLOADS"}, {"path": "a" * 5000}]


@pytest.mark.parametrize("value", NO_UPLOADS)
def test_a_call_names_nothing_but_uploads(guarded, uploads, reached, value):
    text = json.dumps({"fn_index": 1, "data": [value], "session_hash": "s"})
    body = text.replace("UPLOADS", str(uploads)).encode()
    assert call(guarded, body) == 422
    assert call(guarded, body, "/gradio_api/call/classify") == 422
    assert not reached


NO_CALLS = [b"", b"[", b"[]", b"null", b"\xff", b'{"a":' * 3000, {}, {"data": []}, {"fn_index": 1}]
NO_CALLS += [
    {"fn_index": number, "data": data, "session_hash": session}
    for number, data, session in [
        *[(9, [None], "s"), (True, [None], "s"), ("1", [None], "s"), (1, [None, None], "s")],
        *[(1, None, "s"), (1, [None], "../x"), (1, [None], 5), (1, [None], None)],
        *[(0, [-1], "s"), (0, [8], "s"), (0, [True], "s"), (0, ["0"], "s")],
    ]
]


@pytest.mark.parametrize("fields", NO_CALLS)
def test_a_call_of_another_shape_is_refused(guarded, reached, fields):
    assert call(guarded, fields) == 422
    assert not reached


def test_only_an_example_is_chosen_without_the_queue(guarded, reached):
    path = "/gradio_api/run/predict"
    assert call(guarded, {"fn_index": 1, "data": [None], "session_hash": "s"}, path) == 422
    assert not reached
    assert call(guarded, {"fn_index": 0, "data": [7], "session_hash": "s"}, path) == 200


def test_an_upload_holds_one_file(guarded, reached):
    two = b'filename="a"\r\n\r\nfilename="b"'
    assert ask(guarded, "POST", "/gradio_api/upload", [two])[0] == 400
    assert ask(guarded, "POST", "/gradio_api/upload", [b"nothing"])[0] == 400
    assert not reached
