"""The end of streams: disconnects, clients that do not read, draining."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections import Counter
from contextlib import AsyncExitStack

import pytest
from prometheus_client import CollectorRegistry
from websockets.exceptions import ConnectionClosed

from service.api.stream.route import TURNS
from tests.api.double import RecognizerDouble
from tests.api.sockets import http_client, listening
from tests.api.sounds import wav
from tests.api.stream.talking import SECOND, START, NewApp, send_slowly, talking, words
from tests.inference.running import until


@pytest.mark.parametrize("stage", ["connected", "started", "receiving", "waiting", "ended", "turn"])
async def test_a_client_that_disconnects(
    new_app: NewApp,
    recognizer: RecognizerDouble,
    registry: CollectorRegistry,
    caplog: pytest.LogCaptureFixture,
    stage: str,
) -> None:
    app = new_app()
    recognizer.gate.clear()
    async with listening(app) as port:
        tasks = len(asyncio.all_tasks())
        async with AsyncExitStack() as stack:
            if stage == "turn":
                for _ in range(TURNS):
                    other = await stack.enter_async_context(talking(port))
                    await other.start(window=1)
                    await other.send(SECOND)
                await until(lambda: recognizer.waiting == TURNS)
            async with talking(port) as talk:
                if stage != "connected":
                    await talk.start(window=1)
                if stage in ("receiving", "waiting", "ended", "turn"):
                    await talk.send(SECOND if stage != "receiving" else SECOND[:1000])
                if stage in ("waiting", "ended"):
                    await until(lambda: recognizer.waiting == 1)
                if stage == "ended":
                    await talk.end()
                await asyncio.sleep(0.05)
            await until(lambda: recognizer.streams == (TURNS if stage == "turn" else 0))
        await until(lambda: recognizer.streams == 0)
        await until(lambda: len(asyncio.all_tasks()) == tasks)
        assert recognizer.waiting == 0
        turns = app.state.services.streams.turns
        assert turns._value == TURNS, "every turn was released"
        recognizer.gate.set()
        async with talking(port) as talk:
            await talk.start(window=1)
            await talk.send(SECOND)
            await talk.event("window")
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert (registry.get_sample_value("ser_streams_closed_total", {"code": "1005"}) or 0) >= 1


async def test_a_client_that_closes_the_stream(new_app: NewApp, registry: CollectorRegistry) -> None:
    async with listening(new_app()) as port:
        for code in (1001, 4321):
            async with talking(port) as talk:
                await talk.start()
                await talk.connection.close(code)
    assert registry.get_sample_value("ser_streams_closed_total", {"code": "1001"}) == 1
    assert registry.get_sample_value("ser_streams_closed_total", {"code": "other"}) == 1


async def test_draining_ends_streams_with_their_result(new_app: NewApp, recognizer: RecognizerDouble) -> None:
    async with listening(new_app()) as port, talking(port) as talk, talking(port) as ending, talking(port) as new:
        await talk.start(late="wait")
        await talk.send(words(2.5).tobytes()[:-1600])
        await talk.event("utterance")
        await talk.event("window")
        recognizer.gate.clear()
        await ending.start(window=1)
        await ending.send(SECOND[:8000])  # less than a window, so that its only window is due at the end message
        await ending.end()
        await until(lambda: recognizer.waiting == 1)
        recognizer.draining.set()
        recognizer.gate.set()
        events = await talk.rest()
        kinds = [event["type"] for event in events]
        assert kinds[-2:] == ["result", "problem"]
        assert events[-2]["duration"] == pytest.approx(4.4)
        assert events[-2]["speech_seconds"] == pytest.approx(2.5, abs=0.3)
        assert events[-1]["code"] == "draining"
        assert talk.connection.close_code == 1012
        assert [event["type"] for event in await ending.rest()] == ["window", "result"]
        assert ending.connection.close_code == 1000, "it was complete"
        await new.send(START)
        assert [event["type"] for event in await new.rest()] == ["ready", "result", "problem"]
        assert recognizer.streams == 0


async def test_a_server_that_stops_closes_streams(new_app: NewApp, recognizer: RecognizerDouble) -> None:
    recognizer.gate.clear()
    async with AsyncExitStack() as stack:
        async with listening(new_app()) as port:
            talk = await stack.enter_async_context(talking(port))
            await talk.start(window=1)
            await talk.send(SECOND)
            await until(lambda: recognizer.waiting == 1)
        assert await talk.closed() == 1012
        assert recognizer.streams == 0


async def test_a_client_that_does_not_read_is_disconnected(
    new_app: NewApp, recognizer: RecognizerDouble, registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.api.stream.session._PROBLEM_SECONDS", 0.1)
    monkeypatch.setattr("service.api.server.websocket_protocol._CLOSE_SECONDS", 0.1)
    app = new_app(stream_idle_timeout=0.4)
    async with listening(app, send_buffer=4096) as port, talking(port, max_queue=1, receive_buffer=4096) as talk:
        await talk.start(window=0.1, hop=0.1, late="wait")
        sending = asyncio.create_task(send_slowly(talk.connection.send, [SECOND] * 1000))
        await until(lambda: registry.get_sample_value("ser_streams_closed_total", {"code": "1008"}) == 1)
        assert recognizer.streams == 0
        async with http_client(port) as client:
            assert (await client.post("/recognize", files={"file": ("a.wav", wav())})).status_code == 200
        await asyncio.wait((sending,))
        with pytest.raises(ConnectionClosed):
            sending.result()
    assert len(recognizer.clips) < 2000


async def test_a_stream_leaves_no_objects_behind(new_app: NewApp, recognizer: RecognizerDouble) -> None:
    async with listening(new_app()) as port:
        before = _stream_objects()
        for _ in range(3):
            async with talking(port) as talk:
                await talk.start(window=1)
                assert _stream_objects() - before  # the count includes them
                await talk.send(SECOND * 3)
                await talk.end()
                await talk.rest()
        recognizer.clips.clear()
        await until(lambda: _stream_objects() - before == Counter())  # threads may release objects late


def _stream_objects() -> Counter[str]:
    """The objects of the classes of streams, by class name, without the connections."""
    gc.collect()
    names = [
        type(each).__name__
        for each in gc.get_objects()
        if str(type(each).__module__).startswith(("service.api.stream.", "service.recognition.live."))
    ]
    return Counter(names)
