"""Streams over time: idle clients, late windows, shared turns, and full queues."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, suppress
from time import monotonic
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from websockets.exceptions import ConnectionClosed

from service.api.stream.route import TURNS
from service.errors import (
    QueueFull,
)
from service.recognition.live.schedule import StreamSchedule
from tests.api.double import RecognizerDouble
from tests.api.sockets import http_client, listening
from tests.api.sounds import wav
from tests.api.stream.talking import SECOND, START, NewApp, noise, send_slowly, talking, words
from tests.inference.running import until


@pytest.mark.parametrize(
    ("limits", "cases"),
    [
        ({"header_timeout": 0.3}, [[]]),
        ({"stream_idle_timeout": 0.3}, [[START], [START, SECOND], [START, *[b""] * 7]]),
        ({"stream_idle_timeout": 0.3}, [[START, *[b"\0\0"] * 100]]),
    ],
)
async def test_a_stream_that_stalls_is_closed(
    new_app: NewApp, limits: dict[str, float], cases: list[list[str | bytes]]
) -> None:
    async def stall(port: int, messages: list[str | bytes]) -> None:
        async with talking(port) as talk:
            sending = asyncio.create_task(send_slowly(talk.connection.send, messages))
            if messages:
                await talk.event("ready")
            problem = await talk.problem("stream_idle", 1008)
            assert problem["status"] == 408
            with suppress(ConnectionClosed):  # on a busy machine the stream may end before all is sent
                await sending

    async with listening(new_app(**limits)) as port:
        await asyncio.gather(*(stall(port, messages) for messages in cases))


async def test_a_stream_that_brings_little_audio_goes_on(new_app: NewApp) -> None:
    async with listening(new_app(stream_idle_timeout=0.3, min_stream_speed=0.001)) as port, talking(port) as talk:
        await talk.start(window=1)
        await send_slowly(talk.send, [b"\0\0" * 80] * 25)
        await talk.end()
        assert (await talk.rest())[-1]["type"] == "result"


async def test_the_time_of_recognition_does_not_count_as_idle(new_app: NewApp, recognizer: RecognizerDouble) -> None:
    recognizer.gate.clear()
    async with listening(new_app(stream_idle_timeout=1.0)) as port, talking(port) as talk:
        await talk.start(late="wait", window=1)
        await talk.send(SECOND)
        await until(lambda: recognizer.waiting == 1)
        await asyncio.sleep(1.4)
        recognizer.gate.set()
        await talk.event("window")
        await talk.end()
        await asyncio.sleep(1.2)  # no idle timeout after the end message
        assert [event["type"] for event in await talk.rest()] == ["result"]


async def test_the_audio_of_a_stream_is_limited(new_app: NewApp) -> None:
    async with listening(new_app(max_stream_duration=10)) as port, talking(port) as talk:
        await talk.start(window=10)
        await talk.send(SECOND * 10)
        await talk.event("window")
        await talk.send(SECOND[:2])
        await talk.problem("audio_too_long", 1008)


async def test_the_duration_of_a_stream_is_limited(new_app: NewApp) -> None:
    async with listening(new_app(max_stream_duration=0.5)) as port, talking(port) as talk:
        await talk.send(START)
        assert (await talk.rest())[-1]["code"] == "audio_too_long"
        assert talk.connection.close_code == 1008


async def test_late_windows_are_skipped(
    new_app: NewApp, recognizer: RecognizerDouble, registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    added = 0
    add = StreamSchedule.add

    def counted(schedule: StreamSchedule, *what: Any) -> None:
        nonlocal added
        add(schedule, *what)
        added += 1

    monkeypatch.setattr(StreamSchedule, "add", counted)
    recognizer.gate.clear()
    began = monotonic()
    async with listening(new_app()) as port, talking(port) as talk:
        await talk.start(window=1)
        await talk.send(SECOND)
        await until(lambda: recognizer.waiting == 1)
        for _ in range(5):
            await talk.send(SECOND)
        await talk.send(b"")
        await until(lambda: added == 7)
        assert recognizer.most_waiting == 1
        recognizer.gate.set()
        events = [await talk.event("window") for _ in range(2)]
        assert [(event["start"], event["skipped"]) for event in events] == [(0.0, 0), (5.0, 4)]
        await talk.send(SECOND)
        assert (await talk.event("window"))["skipped"] == 0
        await talk.end()
        await talk.event("result")
    assert registry.get_sample_value("ser_stream_skipped_windows_total") == 4
    assert registry.get_sample_value("ser_stream_delay_seconds_count") == 3
    assert 0 < (registry.get_sample_value("ser_stream_delay_seconds_sum") or 0) < 3 * (monotonic() - began)


async def test_a_client_that_waits_for_every_window_is_read_at_the_pace_of_recognition(
    new_app: NewApp, recognizer: RecognizerDouble
) -> None:
    recognizer.gate.clear()
    sent = 0

    async def send(connection: Any) -> None:
        nonlocal sent
        for _ in range(40):
            await connection.send(SECOND * 30)
            sent += 30

    async with listening(new_app()) as port, talking(port) as talk:
        await talk.start(late="wait", window=30, hop=30)
        sending = asyncio.create_task(send(talk.connection))
        await until(lambda: recognizer.waiting == 1)
        before = -1
        while before != sent:
            before = sent
            await asyncio.sleep(0.3)
        assert len(recognizer.clips) == 1
        assert sent < 1200, "the buffers of the sockets are full"
        recognizer.gate.set()
        for number in range(40):
            event = await talk.event("window")
            assert (event["start"], event["skipped"]) == (30.0 * number, 0)
        await sending
    assert recognizer.most_waiting == 1


@pytest.mark.parametrize("late", ["skip", "wait"])
async def test_a_full_queue_does_not_end_the_stream(
    new_app: NewApp,
    recognizer: RecognizerDouble,
    registry: CollectorRegistry,
    monkeypatch: pytest.MonkeyPatch,
    late: str,
) -> None:
    monkeypatch.setattr("service.recognition.core._QUEUE_PAUSE", 0.01)
    recognizer.faults += [QueueFull("Full."), QueueFull("Full."), None]
    async with listening(new_app()) as port, talking(port) as talk:
        await talk.start(window=1, late=late)
        for second in range(3):
            await talk.send(SECOND)
            await until(lambda second=second: len(recognizer.clips) > second)  # type: ignore[misc]
        events = [await talk.event("window") for _ in range(1 if late == "skip" else 3)]
        starts = [(event["start"], event["skipped"]) for event in events]
        assert starts == ([(2.0, 2)] if late == "skip" else [(0.0, 0), (1.0, 0), (2.0, 0)])
    assert registry.get_sample_value("ser_stream_skipped_windows_total") == (2 if late == "skip" else 0)


async def test_an_utterance_is_retried_until_its_deadline(
    new_app: NewApp, recognizer: RecognizerDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.recognition.core._QUEUE_PAUSE", 0.01)
    recognizer.faults += [QueueFull("Full.")] * 1000
    async with listening(new_app(timeout=0.2)) as port, talking(port) as talk:
        await talk.start(window=30)
        await talk.send(words(2.5).tobytes())
        await talk.problem("deadline_exceeded", 1013)


async def test_few_clips_of_streams_are_queued_at_a_time(new_app: NewApp, recognizer: RecognizerDouble) -> None:
    """Only `TURNS` of their clips are queued before those of requests."""
    recognizer.gate.clear()
    async with listening(new_app()) as port, AsyncExitStack() as stack:
        talks = [await stack.enter_async_context(talking(port)) for _ in range(TURNS + 6)]
        for talk in talks:
            await talk.start(window=1, channels=2, select="split")
            await talk.send(noise(1.0, channels=2).tobytes())
        await until(lambda: recognizer.waiting == TURNS)
        await asyncio.sleep(0.1)
        assert len(recognizer.clips) == TURNS
        async with http_client(port) as client:
            posting = asyncio.create_task(client.post("/recognize", files={"file": ("a.wav", wav())}))
            await until(lambda: recognizer.waiting == TURNS + 1)
            assert recognizer.permits == 1, "streams use no permits of requests"
            recognizer.gate.set()
            assert (await posting).status_code == 200
        for talk in talks:
            assert [(await talk.event("window"))["channel"] for _ in range(2)] == [0, 1]
    assert recognizer.most_waiting == TURNS + 1
