import asyncio
import json
from urllib.parse import quote

import pytest

from resnet_cifar100.serve import gate
from resnet_cifar100.serve.gate import JOIN, RUN, Gate
from resnet_cifar100.serve.uploads import Uploads

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
def seen():
    return []


@pytest.fixture
def guarded(reached, seen, uploads):
    async def app(scope, receive, send):
        body = (await receive()).get("body") if scope["method"] == "POST" else None
        reached.append((scope["path"], body))
        seen.append(scope)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"reached"})

    return Gate(app, Uploads(uploads), {RUN: {0: [8], 1: ["picture"]}, JOIN: {2: ["picture"]}})


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

    headers = {"host": "localhost", **headers}
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": method, "path": path, "headers": pairs}
    scope["query_string"] = b"session_hash=x"
    asyncio.run(guarded(scope, receive, send))
    head = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], head, b"".join(one.get("body", b"") for one in sent[1:])


def call(guarded, fields, path=RUN):
    body = fields if isinstance(fields, bytes) else json.dumps(fields).encode()
    return ask(guarded, "POST", path, [body])[0]


NEEDED = ["/", "/config", "/health", "/theme.css", "/assets/index-1b2c.js", "/gradio_api/info"]
NEEDED += ["/static/fonts/x/y.woff2", "/gradio_api/queue/data", "/gradio_api/upload_progress"]


@pytest.mark.parametrize("path", NEEDED)
def test_what_the_page_needs_passes_with_headers_that_protect_it(guarded, path):
    status, headers, body = ask(guarded, "GET", path)
    assert (status, body) == (200, b"reached")
    assert headers["x-content-type-options"] == "nosniff"
    assert "object-src 'none'" in headers["content-security-policy"]


def test_other_headers_and_queries_are_dropped(guarded, seen):
    odd = {"origin": "https://evil.example", "range": "bytes=1-2-3", "cookie": "a=b", "x-odd": "1"}
    assert ask(guarded, "GET", "/", **odd)[0] == 200
    assert seen[0]["headers"] == [(b"host", b"localhost")]
    assert seen[0]["query_string"] == b""
    assert ask(guarded, "GET", "/gradio_api/queue/data")[0] == 200
    assert seen[1]["query_string"] == b"session_hash=x"


@pytest.mark.parametrize(
    "host", ["999.1.1.1", "[::1", "x:y", "ü", "999.1.1.1,x", "x:y,@z", "a" + " " * 300 + "b", ",x"]
)
@pytest.mark.parametrize("name", ["host", "x-forwarded-host"])
def test_a_host_that_is_none_is_refused(guarded, reached, name, host):
    assert ask(guarded, "GET", "/config", **{name: host})[0] == 400
    assert not reached


def test_of_several_hosts_the_first_counts(guarded, seen):
    assert ask(guarded, "GET", "/", **{"x-forwarded-host": "a.example, b.example"})[0] == 200
    assert (b"x-forwarded-host", b"a.example") in seen[0]["headers"]


def traversals(uploads) -> list[str]:
    """300 ways to ask for files of the server."""
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
    coded = [route + quote(target, safe="") for route in routes[:5] for target in targets]
    twice = [route + quote(quote(one, safe="")) for route in routes[:5] for one in targets]
    return [*plain, *coded, *twice, "/gradio_api/FILE=/etc/passwd", "//etc/passwd", "/..", "/%2e."]


def test_none_of_300_paths_reaches_a_file(guarded, uploads, reached):
    paths = traversals(uploads)
    assert len(paths) >= 300
    for path in paths:
        for method in ("PUT", "DELETE", "PATCH", "POST"):
            assert ask(guarded, method, path)[0] == 404, path
        if not path.startswith("/gradio_api/file="):  # those are for Uploads.find to refuse
            assert ask(guarded, "GET", path)[0] == 404, path
    assert not reached


NOT_NEEDED = ["/login", "/monitoring", "/docs", "/openapi.json", "/token", "/runs"]
NOT_NEEDED += ["/gradio_api/dev/reload", "/gradio_api/run/classify", "/gradio_api/vibe-code"]
NOT_NEEDED += ["/gradio_api/component_server", "/gradio_api/deep_link", "/gradio_api/mcp/"]
NOT_NEEDED += ["/gradio_api/heartbeat/x", "/gradio_api/startup-events", "/gradio_api/call/classify"]
NOT_NEEDED += ["/gradio_api/cancel", "/gradio_api/reset", "/assets/" + "a" * 300, "/svelte/x.js"]
NOT_NEEDED += ["/assets/" + "\u8a9e" * 101, "/robots.txt"]


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


def test_bodies_have_a_common_limit(guarded, reached, monkeypatch):
    monkeypatch.setattr(gate, "MAX_BODIES", 1000)
    assert ask(guarded, "POST", "/classify", [bytes(900), bytes(200)])[0] == 503
    assert not reached
    assert ask(guarded, "POST", "/classify", [bytes(900)])[0] == 200  # what was refused is over


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
    kept = {"path": name, "meta": {"_type": "gradio.FileData"}}
    assert json.loads(body) == {"data": [kept], "fn_index": 1}
    assert call(guarded, fields | {"fn_index": 2}, JOIN) == 200
    assert json.loads(reached[1][1]) == {"data": [kept], "fn_index": 2, "session_hash": "s1"}


NO_UPLOADS = ["x", 7, [], {}, {"path": None}, {"path": 3}, {"path": "/etc/passwd"}, {"path": "\0"}]
NO_UPLOADS += [{"path": "UPLOADS/../secret"}, {"path": f"UPLOADS/{HASH}/way_out"}, {"path": ""}]
NO_UPLOADS += [{"path": "http://127.0.0.1/"}, {"path": f"UPLOADS/{HASH}/gone.png"}]
NO_UPLOADS += [{"url": "data:image/png;base64,AAAA"}, {"path": "UPLOADS"}, {"path": "a" * 5000}]


@pytest.mark.parametrize("value", NO_UPLOADS)
def test_a_call_names_nothing_but_uploads(guarded, uploads, reached, value):
    for path, number in ((RUN, 1), (JOIN, 2)):
        text = json.dumps({"fn_index": number, "data": [value], "session_hash": "s"})
        body = text.replace("UPLOADS", str(uploads)).encode()
        assert call(guarded, body, path) == 422
    assert not reached


NO_CALLS = [b"", b"[", b"[]", b"null", b"\xff", b'{"a":' * 3000, {}, {"data": []}, {"fn_index": 1}]
NO_CALLS += [
    {"fn_index": number, "data": data, "session_hash": "s"}
    for number, data in [
        *[(9, [None]), (True, [None]), ("1", [None]), (1, [None, None]), (1, None), (2, [None])],
        *[(0, [-1]), (0, [8]), (0, [True]), (0, ["0"])],
    ]
]


@pytest.mark.parametrize("fields", NO_CALLS)
def test_a_call_of_another_shape_is_refused(guarded, reached, fields):
    assert call(guarded, fields) == 422
    assert not reached


def test_what_waits_in_line_and_what_does_not_are_called_each_at_its_place(guarded, reached):
    for path, number, status in ((RUN, 1, 200), (RUN, 2, 422), (JOIN, 2, 200), (JOIN, 1, 422)):
        fields = {"fn_index": number, "data": [None], "session_hash": "s"}
        assert call(guarded, fields, path) == status
    assert len(reached) == 2


@pytest.mark.parametrize("session", ["../x", 5, None, "", "a" * 65, "a b"])
def test_a_session_is_letters_and_digits(guarded, reached, session):
    assert call(guarded, {"fn_index": 2, "data": [None], "session_hash": session}, JOIN) == 422
    assert not reached
