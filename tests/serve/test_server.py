"""The server as its clients meet it: over HTTP, in a process of its own."""

import json
import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from gradio_client import Client, handle_file

from resnet_cifar100.data.images import MAX_BYTES
from tests.conftest import REPOSITORY
from tests.data.images.pictures import encode, picture, png_of
from tests.serve.conftest import live_server

BOMB = png_of(10_000, 10_000, 1, 0, bytes(10_000 * 1_251))  # 100 megapixels in 12 kB


def curl(*arguments: str) -> str:
    done = subprocess.run(
        ["curl", "-sS", "--max-time", "20", *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout


def upload(server, content: bytes, name: str = "picture.png") -> httpx.Response:
    return httpx.post(f"{server.url}/gradio_api/upload", files={"files": (name, content)})


def classify_by_gradio(server, path: str) -> str:
    """Call the page's function by hand; return what comes back, a list of events as text."""
    file = {"path": path, "meta": {"_type": "gradio.FileData"}}
    address = f"{server.url}/gradio_api/call/classify"
    event = httpx.post(address, json={"data": [file]}).raise_for_status().json()["event_id"]
    return httpx.get(f"{address}/{event}", timeout=20).text


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


def test_gradios_three_steps_by_hand_get_it_too(server, drawings):
    (path,) = upload(server, drawings["sea"].read_bytes()).raise_for_status().json()
    events = classify_by_gradio(server, path)
    assert "event: complete" in events
    assert json.loads(events.split("data: ")[-1])[0]["class"] == "sea"


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
    if content:
        (path,) = upload(server, content).raise_for_status().json()
        events = classify_by_gradio(server, path)
        assert "event: error" in events
        assert sentence in json.loads(events.split("data: ")[-1])["error"]


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


@pytest.mark.parametrize("body", [b"", b"--x", b"--x\r\nfilename\r\n--x--", os.urandom(500)])
def test_a_broken_upload_is_no_server_error(server, body):
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    for headers in (kind, {}, {"Content-Type": "multipart/form-data"}):
        address = f"{server.url}/gradio_api/upload"
        assert 400 <= httpx.post(address, content=body, headers=headers).status_code < 500


def test_nothing_of_the_disk_is_served(server):
    for path in (
        "/etc/passwd",
        f"{server.log}",
        f"{REPOSITORY}/README.md",
        "weights/fast.safetensors",
    ):
        for route in ("/gradio_api/file=", "/gradio_api/file/", "/static/../../", "/assets/..%2f"):
            reply = httpx.get(f"{server.url}{route}{path}")
            assert reply.status_code == 404


def test_other_sites_may_not_call(server):
    for origin in ("https://evil.example", "null"):
        headers = {"Origin": origin}
        for method, path in (("GET", "/"), ("GET", "/config"), ("POST", "/classify")):
            reply = httpx.request(method, server.url + path, headers=headers)
            assert reply.headers.get("Access-Control-Allow-Origin") not in ("*", origin)


def test_an_address_in_a_call_is_not_fetched(server):
    with socket.create_server(("127.0.0.1", 0)) as canary:
        canary.settimeout(0.5)
        address = f"http://127.0.0.1:{canary.getsockname()[1]}/x.png"
        file = {"path": address, "url": address, "meta": {"_type": "gradio.FileData"}}
        for route, more in (("call/classify", {}), ("queue/join", {"fn_index": 1})):
            fields = {"data": [file], "session_hash": "s", **more}
            reply = httpx.post(f"{server.url}/gradio_api/{route}", json=fields)
            assert reply.status_code == 422
        with pytest.raises(TimeoutError):
            canary.accept()


def test_slow_visitors_do_not_hold_up_the_others(server):
    address = server.url.removeprefix("http://").split(":")
    visitors = [socket.create_connection((address[0], int(address[1]))) for _ in range(50)]
    for visitor in visitors:
        visitor.sendall(b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\na")
    start = time.perf_counter()
    assert httpx.get(f"{server.url}/health").status_code == 200
    assert time.perf_counter() - start < 5
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


def test_weights_that_are_not_there_are_named_with_the_command_that_makes_them(tmp_path):
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "huggingface_app" / "app.py")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 4
    assert "python train.py" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_in_use_is_said_so(server, tmp_path):
    port = server.url.rsplit(":", 1)[1]
    command = [sys.executable, str(REPOSITORY / "huggingface_app" / "app.py"), "--port", port]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert done.returncode == 3
    assert f"--port {port}" in done.stderr
    assert "Traceback" not in done.stderr
