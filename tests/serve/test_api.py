"""The limits of what waits, without a server."""

import asyncio
import threading

import httpx
import pytest

from resnet_cifar100.serve import api as module
from resnet_cifar100.serve import calls
from resnet_cifar100.serve.api import Api
from resnet_cifar100.serve.uploads import Uploads


class SlowPredictor:
    """Answers nothing until it is let go."""

    def __init__(self):
        self.go = threading.Event()
        self.at_work = 0

    def classify(self, content):
        self.at_work += 1
        self.go.wait(10)
        raise module.ImageError("The picture is a test.")


@pytest.fixture
def slow():
    return SlowPredictor()


def test_no_more_wait_than_may_and_no_more_work_than_threads(slow, tmp_path):
    async def run():
        api = Api(slow, Uploads(tmp_path))
        transport = httpx.ASGITransport(app=api.create_app())
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            waiting = [
                asyncio.create_task(client.post("/classify", content=b"x"))
                for _ in range(module.MAX_WAITING)
            ]
            while api._waiting < module.MAX_WAITING or slow.at_work < module.THREADS:
                await asyncio.sleep(0.01)
            refused = await client.post("/classify", content=b"x")
            health = await client.get("/health")
            assert slow.at_work == module.THREADS
            slow.go.set()
            return refused, health, [(await one).status_code for one in waiting]

    refused, health, statuses = asyncio.run(asyncio.wait_for(run(), 30))
    assert refused.status_code == 503
    assert refused.headers["retry-after"] == "1"
    assert "try again" in refused.json()["error"]
    assert health.status_code == 200
    assert statuses == [422] * module.MAX_WAITING


def test_calls_that_wait_do_not_shut_out_classify(slow, tmp_path):
    async def run():
        uploads = Uploads(tmp_path)
        api = Api(slow, uploads)
        picture = {"path": str(uploads.add(b"x", "a.png"))}
        for number in range(calls.MOST_UNFINISHED):
            api.calls.start(str(number % 4), api._call_work(picture))
        while slow.at_work < module.THREADS:
            await asyncio.sleep(0.01)
        transport = httpx.ASGITransport(app=api.create_app())
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            asked = asyncio.create_task(client.post("/classify", content=b"x"))
            await asyncio.sleep(0.05)
            slow.go.set()
            return await asked

    assert asyncio.run(asyncio.wait_for(run(), 30)).status_code == 422


def test_one_call_more_than_may_wait_is_told_to_come_back(slow, tmp_path):
    async def run():
        uploads = Uploads(tmp_path)
        picture = {"path": str(uploads.add(b"x", "a.png"))}
        transport = httpx.ASGITransport(app=Api(slow, uploads).create_app())
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            replies = [
                await client.post(
                    "/gradio_api/queue/join",
                    json={"data": [picture], "session_hash": str(number % 4)},
                )
                for number in range(calls.MOST_UNFINISHED + 1)
            ]
        slow.go.set()
        return replies

    *begun, refused = asyncio.run(asyncio.wait_for(run(), 30))
    assert {reply.status_code for reply in begun} == {200}
    assert refused.status_code == 503
    assert refused.headers["retry-after"] == "1"
    assert "try again" in refused.json()["error"]


class FullDisk(Uploads):
    """Finds a file that is no more, and takes none."""

    def add(self, content, name):
        raise OSError(28, "No space left on device")

    def find(self, name):
        return self.folder / "gone.png"


def test_a_disk_that_is_full_and_a_file_that_goes_have_an_answer(tmp_path):
    async def run():
        transport = httpx.ASGITransport(app=Api(None, FullDisk(tmp_path)).create_app())
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            form = {"files": ("a.png", b"x")}
            kept = await client.post("/gradio_api/upload", files=form)
            return kept, await client.get("/gradio_api/file=gone.png")

    kept, gone = asyncio.run(run())
    assert kept.status_code == 503
    assert gone.status_code == 404
    assert gone.json() == {"error": module.GONE}
