"""The server as its clients meet it: over HTTP, in a process of its own."""

import json
import random
import shutil
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from gradio_client import Client, handle_file

from resnet_cifar100.cli import main
from resnet_cifar100.config import SHIPPED_MODEL
from resnet_cifar100.data.images import MAX_BYTES
from resnet_cifar100.serve.gate import BODY_SECONDS
from tests.conftest import REPOSITORY
from tests.data.images.pictures import encode, picture, png_of
from tests.serve.conftest import live_server

BOMB = png_of(10_000, 10_000, 1, 0, bytes(10_000 * 1_251))  # 100 megapixels in 12 kB


def curl(*arguments: str) -> str:
    if shutil.which("curl") is None:
        pytest.skip("there is no curl here")
    done = subprocess.run(
        ["curl", "-sS", "--max-time", "20", *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout


def upload(server, content: bytes, name: str = "picture.png") -> httpx.Response:
    return httpx.post(f"{server.url}/gradio_api/upload", files={"files": (name, content)})


def test_it_is_well(server):
    assert json.loads(curl(f"{server.url}/health")) == {"status": "ok"}


def test_curl_gets_an_answer(server, drawings, predictor):
    said = json.loads(curl("--data-binary", f"@{drawings['orange']}", f"{server.url}/classify"))
    answer = predictor.classify(drawings["orange"])
    assert said["class"] == answer.classes[0].name == said["classes"][0]["class"]
    assert said["probability"] == pytest.approx(answer.classes[0].prob, abs=2e-4)
    assert len(said["classes"]) == 5
    assert said["sure"] is (not said["doubt"])


def test_gradios_client_gets_the_same_answer(server, drawings):
    said = json.loads(curl("--data-binary", f"@{drawings['apple']}", f"{server.url}/classify"))
    client = Client(server.url, verbose=False)
    again = client.predict(handle_file(drawings["apple"]), api_name="/classify")
    client.close()
    del said["milliseconds"], again["milliseconds"]
    assert again == said


def test_gradios_client_may_ask_for_many_at_once(server, drawings):
    client = Client(server.url, verbose=False)
    names = [name for name in drawings if name != "letters"] * 3
    jobs = [client.submit(handle_file(drawings[name]), api_name="/classify") for name in names]
    assert [job.result(timeout=30)["class"] for job in jobs] == names
    client.close()


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "empty"), (b"<svg/>", "not a PNG"), (BOMB, "megapixels"), (b"\x89PNG\r\n\x1a\n", "")],
    ids=["empty", "svg", "bomb", "cut short"],
)
def test_what_is_no_picture_is_refused_in_one_sentence(server, content, reason):
    refusal = httpx.post(f"{server.url}/classify", content=content)
    assert refusal.status_code == 422
    sentence = refusal.json()["error"]
    assert reason in sentence
    assert sentence.startswith("The picture ")


def test_gradios_client_hears_why_a_picture_is_refused(server, tmp_path):
    (tmp_path / "bad.png").write_bytes(BOMB)
    client = Client(server.url, verbose=False)
    with pytest.raises(Exception, match="more than 25 megapixels"):
        client.predict(handle_file(tmp_path / "bad.png"), api_name="/classify")
    with pytest.raises(Exception, match="no picture"):
        client.predict(None, api_name="/classify")
    client.close()


def test_more_than_5_mb_is_refused_by_both_doors(server):
    too_much = bytes(MAX_BYTES + 1)
    assert httpx.post(f"{server.url}/classify", content=too_much).status_code == 422
    assert httpx.post(f"{server.url}/classify", content=bytes(6_000_000)).status_code == 413
    assert upload(server, too_much).status_code == 413
    assert upload(server, bytes(6_000_000)).status_code == 413


@pytest.mark.parametrize(
    "name", ["..", "../../x.png", "x" * 9000 + ".png", "a\0b.png", "/etc/passwd", "ü 1%.png", ""]
)
def test_odd_names_of_uploads_do_no_harm(server, drawings, name):
    reply = upload(server, drawings["orange"].read_bytes(), name)
    assert reply.status_code in (200, 400, 413, 422)
    if reply.status_code == 200:
        (path,) = reply.json()
        assert path.startswith(f"{server.uploads}/")


PART = b'--x\r\nContent-Disposition: form-data; name="files"; %s\r\n\r\nabc\r\n--x--\r\n'
NOISE = random.Random(0).randbytes(500)
BROKEN = [b"", b"--x", b"--x\r\nfilename\r\n--x--", NOISE, PART % b"", PART[:-9] % b""]
BROKEN += [PART % b"filename*=utf-8''a", PART % b'filename="\xff"', PART % b'filename="a\\ud800"']
KINDS = ["multipart/form-data; boundary=x", "multipart/form-data", "text/plain", ""]
KINDS += [f"multipart/form-data; boundary=x; charset={c}" for c in ("undefined", "idna", "nope")]
KINDS += ["multipart/form-data; boundary=x; charset=unicode_escape"]
KINDS += ["multipart/form-data; boundary=" + "x" * 300]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("body", BROKEN)
def test_a_broken_upload_is_no_server_error(server, body, kind):
    address = f"{server.url}/gradio_api/upload?upload_id=u"
    reply = httpx.post(address, content=body, headers={"Content-Type": kind})
    assert reply.status_code in (200, 400)
    if reply.status_code == 200:
        (path,) = reply.json()
        assert path.startswith(f"{server.uploads}/")


@pytest.mark.parametrize(
    "ask",
    [
        b"GET /?page=x HTTP/1.1\r\nHost: x",
        b"GET / HTTP/1.1\r\nHost: 999.1.1.1",
        b"GET /config HTTP/1.1\r\nHost: a\r\nX-Forwarded-Host: x:y",
        b"GET /config HTTP/1.1\r\nHost: a\r\nX-Gradio-Server: http://[::1",
        b"GET / HTTP/1.0\r\nOrigin: x",
        b"GET /assets/" + b"a" * 300 + b" HTTP/1.1\r\nHost: a",
        b"GET /gradio_api/queue/data?session_hash=nope HTTP/1.1\r\nHost: a",
        b"GET /gradio_api/queue/data HTTP/1.1\r\nHost: a",
        b"OPTIONS / HTTP/1.1\r\nHost: a\r\nOrigin: x\r\nAccess-Control-Request-Method: POST",
        b"GET /../../../../etc/passwd HTTP/1.1\r\nHost: a",
        b"GET /static/../../../../../etc/passwd HTTP/1.1\r\nHost: a",
        b"GET /gradio_api/file=/etc/passwd HTTP/1.1\r\nHost: a",
        b"GET http://10.0.0.1/ HTTP/1.1\r\nHost: a",
    ],
)
def test_odd_requests_are_no_server_error(server, ask):
    name, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((name, int(port)), timeout=20) as connection:
        connection.sendall(ask + b"\r\nConnection: close\r\n\r\n")
        reply = b"".join(iter(lambda: connection.recv(65536), b""))
    status = int(reply.split()[1])
    assert status in (200, 400, 404)
    assert b"root:" not in reply
    assert b"access-control-allow-origin" not in reply.lower()
    if b"/etc" in ask:
        assert status == 404


@pytest.mark.parametrize(
    ("path", "status"),
    [("/health", 200), ("/", 200), ("/gradio_api/file=/etc/passwd", 404), ("/nothing", 404)],
)
def test_a_head_is_that_of_the_answer(server, path, status):
    assert httpx.head(server.url + path).status_code == status
    assert httpx.get(server.url + path).status_code == status


def test_a_picture_is_shown_and_parts_of_it_too(server, drawings):
    content = drawings["orange"].read_bytes()
    (path,) = upload(server, content).json()
    address = f"{server.url}/gradio_api/file={path}"
    reply = httpx.get(address)
    assert reply.content == content
    assert reply.headers["content-type"] == "image/png"
    for span in ("bytes=1-2-3", "bytes=\u00b2-\u00b3".encode(), "bytes=5-"):
        assert httpx.get(address, headers={"Range": span}).status_code == 200


def test_other_sites_may_not_call(server):
    for origin in ("https://evil.example", "null"):
        headers = {"Origin": origin, "Host": "my.site"}
        for method, path in (("GET", "/"), ("GET", "/config"), ("POST", "/classify")):
            reply = httpx.request(method, server.url + path, headers=headers)
            assert reply.headers.get("Access-Control-Allow-Origin") not in ("*", origin)


def test_an_address_in_a_call_is_not_fetched(server):
    with socket.create_server(("127.0.0.1", 0)) as canary:
        canary.settimeout(0.5)
        address = f"http://127.0.0.1:{canary.getsockname()[1]}/x.png"
        file = {"path": address, "url": address, "meta": {"_type": "gradio.FileData"}}
        for route, number in (("run/predict", 1), ("queue/join", 2)):
            fields = {"data": [file], "session_hash": "s", "fn_index": number}
            reply = httpx.post(f"{server.url}/gradio_api/{route}", json=fields)
            assert reply.status_code == 422
        with pytest.raises(TimeoutError):
            canary.accept()


def test_slow_visitors_do_not_hold_up_the_others(server):
    address = server.url.removeprefix("http://").split(":")
    visitors = [socket.create_connection((address[0], int(address[1]))) for _ in range(50)]
    for visitor in visitors:
        visitor.sendall(b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\na")
    patience = BODY_SECONDS - 5  # then those visitors are still here
    assert httpx.get(f"{server.url}/health", timeout=patience).status_code == 200
    for visitor in visitors:
        visitor.close()


def test_many_at_once_each_get_their_own_answer(server, predictor):
    contents = [encode(picture(40 + i, 40)) for i in range(12)]
    contents += [encode(picture(40, 40).rotate(15 * i)) for i in range(12)]
    expected = [predictor.classify(content) for content in contents]

    def ask(content: bytes) -> dict:
        return httpx.post(f"{server.url}/classify", content=content, timeout=30).json()

    with ThreadPoolExecutor(8) as pool:
        for said, answer in zip(pool.map(ask, contents * 3), expected * 3, strict=True):
            assert said["class"] == answer.classes[0].name
            assert said["probability"] == pytest.approx(answer.classes[0].prob, abs=2e-4)


def test_hostile_variables_are_ignored(tmp_path):
    hostile = {
        "GRADIO_SHARE": "True",
        "GRADIO_ALLOWED_PATHS": "/,/etc",
        "GRADIO_MCP_SERVER": "True",
        "GRADIO_VIBE_MODE": "1",
        "GRADIO_ANALYTICS_ENABLED": "True",
        "GRADIO_FLAGGING_MODE": "auto",
        "GRADIO_SSR_MODE": "True",
        "GRADIO_TEMP_DIR": str(tmp_path),
    }
    with live_server(tmp_path, **hostile) as server:
        assert httpx.get(f"{server.url}/gradio_api/file=/etc/passwd").status_code == 404
        assert httpx.get(f"{server.url}/gradio_api/mcp/").status_code == 404
        config = httpx.get(f"{server.url}/config").json()
        assert config["vibe_mode"] is config["analytics_enabled"] is config["mcp_server"] is False


def test_weights_that_are_not_there_are_named_with_the_command_that_makes_them(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert main(["app"]) == 4
    assert "python train.py" in capsys.readouterr().err


def test_a_port_in_use_is_said_so(server, capsys):
    port = server.url.rsplit(":", 1)[1]
    weights = str(REPOSITORY / SHIPPED_MODEL)
    assert main(["app", "--port", port, "--checkpoint-path", weights]) == 3
    assert f"--port {port}" in capsys.readouterr().err
