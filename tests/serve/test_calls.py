import asyncio
import json

import pytest

from resnet_cifar100.serve import calls as module
from resnet_cifar100.serve.calls import BusyError, Calls


async def work(number, seconds=0.0):
    await asyncio.sleep(seconds)
    return {"output": {"data": [number]}, "success": True}


async def answers(calls, session):
    text = [part async for part in calls.stream(session)]
    return [json.loads(part.removeprefix("data: ")) for part in text]


def test_each_session_gets_its_own_answers_and_then_the_end():
    async def run():
        calls = Calls()
        events = [
            calls.start("a", work(1, 0.05)),
            calls.start("a", work(2)),
            calls.start("b", work(3)),
        ]
        return events, await answers(calls, "a"), await answers(calls, "b"), calls._sessions

    events, of_a, of_b, left = asyncio.run(run())
    assert [(one["event_id"], one["output"]["data"]) for one in of_a[:-1]] == [
        (events[1], [2]),
        (events[0], [1]),
    ]
    assert [one["msg"] for one in of_b] == ["process_completed", "close_stream"]
    assert of_b[0]["event_id"] == events[2]
    assert left == {}


def test_who_waits_for_a_call_that_fails_is_told_at_once():
    async def fails():
        raise RuntimeError("the network")

    async def run():
        calls = Calls()
        calls.start("a", fails())
        return await asyncio.wait_for(answers(calls, "a"), 5)

    failure, end = asyncio.run(run())
    assert failure["success"] is False
    assert failure["output"] == {"error": "The server failed."}
    assert end["msg"] == "close_stream"


def test_a_session_is_streamed_once_and_only_if_it_exists():
    async def run():
        calls = Calls()
        assert not calls.can_stream("a")
        calls.start("a", work(1, 0.05))
        assert calls.can_stream("a")
        stream = calls.stream("a")
        first = asyncio.create_task(anext(stream))
        await asyncio.sleep(0.01)
        assert not calls.can_stream("a")
        await first
        assert [part async for part in stream]
        assert not calls.can_stream("a")

    asyncio.run(run())


def test_what_nobody_fetches_is_bounded_and_forgotten(monkeypatch):
    monkeypatch.setattr(module, "MOST_SESSIONS", 5)
    monkeypatch.setattr(module, "MOST_CALLS", 3)

    async def refused(calls, session):
        unused = work(0)
        with pytest.raises(BusyError):
            calls.start(session, unused)
        unused.close()

    async def run():
        calls = Calls()
        for number in range(3):
            calls.start("0", work(number))
        await refused(calls, "0")
        for session in "1234":
            calls.start(session, work(0))
        await refused(calls, "5")
        await asyncio.sleep(0.01)
        await refused(calls, "0")
        monkeypatch.setattr(module, "SECONDS", 0.0)
        calls.start("5", work(0))
        assert list(calls._sessions) == ["5"]
        await asyncio.sleep(0)

    asyncio.run(run())


def test_calls_whose_client_has_gone_count_until_they_are_done(monkeypatch):
    monkeypatch.setattr(module, "MOST_UNFINISHED", 4)

    async def run():
        calls, let_go = Calls(), asyncio.Event()

        async def held(number):
            await let_go.wait()
            return await work(number)

        for number in range(4):
            calls.start(str(number), held(number))
            stream = calls.stream(str(number))
            fetching = asyncio.create_task(anext(stream))
            await asyncio.sleep(0.01)
            fetching.cancel()  # as the server does where a visitor leaves
            await asyncio.gather(fetching, return_exceptions=True)
            await stream.aclose()
        assert calls._sessions == {}
        unused = work(0)
        with pytest.raises(BusyError):
            calls.start("new", unused)
        unused.close()
        let_go.set()
        await asyncio.gather(*calls._tasks)
        calls.start("new", work(0))
        assert await answers(calls, "new")

    asyncio.run(run())


def test_a_session_that_was_swept_in_between_ends_without_a_word():
    async def run():
        return await answers(Calls(), "gone")

    assert asyncio.run(run()) == []
