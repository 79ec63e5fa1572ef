"""`/stream` over real sockets, with a recognizer that does as it is told."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from websockets.exceptions import ConnectionClosed

from service.api.stream import TURNS
from service.errors import (
    DeadlineExceeded,
    Draining,
    InferenceFailed,
    ModelLoading,
    QueueFull,
    ServiceError,
    TooManyStreams,
    WorkerDead,
)
from tests.api.double import RecognizerDouble
from tests.api.sockets import http_client, listening
from tests.api.sounds import wav
from tests.api.streams import noise, refused, talking, words
from tests.inference.running import until

SECOND = noise(1.0).tobytes()
START = '{"type":"start","sampling_rate":8000,"encoding":"s16le"}'

NewApp = Callable[..., FastAPI]


async def test_a_stream_from_its_start_to_its_result(
    new_app: NewApp, recognizer: RecognizerDouble, registry: CollectorRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "service.api.access_log")
    samples = words(2.5, 2.5)
    async with listening(new_app()) as port, talking(port, {"x-request-id": "my-call"}) as talk:
        ready = await talk.start(late="wait")
        assert ready == {
            "type": "ready",
            "id": "my-call",
            "model": {**ready["model"], "id": "fake", "demonstration": True},
            "window": 3.0,
            "hop": 1.0,
        }
        for begin in range(0, len(samples), 999):
            await talk.send(samples[begin : begin + 999].tobytes())
        await talk.end()
        events = await talk.rest()
        assert talk.connection.close_code == 1000
    windows = [event for event in events if event["type"] == "window"]
    assert [(event["start"], event["end"], event["skipped"]) for event in windows] == [
        (float(second), float(second + 3), 0) for second in range(6)
    ]
    utterances = [event for event in events if event["type"] == "utterance"]
    assert [event["start"] for event in utterances] == pytest.approx([1.0, 4.5], abs=0.3)
    assert [event["end"] for event in utterances] == pytest.approx([3.5, 7.0], abs=0.3)
    for event in (*windows, *utterances):
        assert "channel" not in event
        assert event["label"] == max(event["scores"], key=lambda row: row["score"])["label"]
    result = events[-1]
    assert result["type"] == "result"
    assert result["duration"] == 8.0
    lengths = [event["end"] - event["start"] for event in utterances]
    assert result["speech_seconds"] == pytest.approx(sum(lengths))
    for index, row in enumerate(result["scores"]):
        scores = [event["scores"][index]["score"] for event in utterances]
        assert row["score"] == pytest.approx(np.average(scores, weights=lengths), abs=1e-6)
    assert recognizer.streams == recognizer.permits == recognizer.most_permits == 0
    _check_counts(registry, "1000", window=6, utterance=2, result=1, ready=1)
    line = next(record for record in caplog.records if record.getMessage() == "stream")
    assert {name: getattr(line, name) for name in ("request_id", "route", "status", "close_code", "audio_seconds")} == {
        "request_id": "my-call",
        "route": "/stream",
        "status": 101,
        "close_code": 1000,
        "audio_seconds": 8.0,
    }
    assert (line.windows, line.skipped_windows, line.utterances) == (6, 0, 2)  # type: ignore[attr-defined]


def _check_counts(registry: CollectorRegistry, close: str, **events: int) -> None:
    assert registry.get_sample_value("ser_streams_closed_total", {"code": close}) == 1
    for kind, count in events.items():
        assert registry.get_sample_value("ser_stream_events_total", {"type": kind}) == count, kind


async def test_channels_are_answered_by_themselves(new_app: NewApp) -> None:
    left, right = words(2.5), words(0.1, 2.4)
    both = np.zeros((max(left.size, right.size), 3), "<i2")
    both[: left.size, 0], both[: right.size, 2] = left, right
    async with listening(new_app()) as port, talking(port) as talk:
        await talk.start(channels=3, select="split", late="wait", window=2.0, hop=2.0)
        await talk.send(both.tobytes())
        await talk.end()
        events = await talk.rest()
    windows = [(event["channel"], event["start"]) for event in events if event["type"] == "window"]
    assert windows[:6] == [(0, 0.0), (1, 0.0), (2, 0.0), (0, 2.0), (1, 2.0), (2, 2.0)]
    assert {event["channel"] for event in events if event["type"] == "utterance"} == {0, 2}
    channels = events[-1]["channels"]
    assert [channel["channel"] for channel in channels] == [0, 1, 2]
    assert channels[1] == {"channel": 1, "speech_seconds": 0.0, "label": None, "score": None, "scores": []}
    assert channels[0]["speech_seconds"] == pytest.approx(2.5, abs=0.3)
    assert "label" not in events[-1]


async def test_wishes_are_as_those_of_a_request(new_app: NewApp, recognizer: RecognizerDouble) -> None:
    async with listening(new_app()) as port, talking(port) as talk:
        await talk.start(labels=["sad", "angry"], label_language="zh", embedding="utterance", trim=True, window=1)
        await talk.send(SECOND)
        event = await talk.event("window")
        assert [row["label"] for row in event["scores"]] == ["难过", "生气"]
        assert sum(row["score"] for row in event["scores"]) == pytest.approx(1)
        assert len(event["embedding"]) == 8
        await talk.end()
        result = await talk.event("result")
        assert (result["label"], result["scores"]) == (None, [])
    assert [clip.trim for clip in recognizer.clips] == [True]


GARBAGE: list[tuple[list[str | bytes], str, int]] = [
    (["garbage"], "invalid_message", 1008),
    (["{"], "invalid_message", 1008),
    ([""], "invalid_message", 1008),
    (["x" * 20_000], "message_too_large", 1009),
    ([SECOND], "invalid_message", 1008),
    (['{"type":"end"}'], "invalid_message", 1008),
    ([START.replace("8000", "7")], "invalid_options", 1008),
    ([START.replace("}", ',"foo":1}')], "invalid_options", 1008),
    ([START.replace("}", ',"labels":["bored"]}')], "invalid_options", 1008),
    ([START, SECOND * 6, START], "invalid_message", 1008),
    ([START, SECOND * 6, "garbage"], "invalid_message", 1008),
    ([START, SECOND * 6, b"odd"], "invalid_message", 1008),
    ([START, SECOND * 6, '{"type":"end"}', SECOND], "invalid_message", 1008),
    ([START, SECOND * 6, '{"type":"end"}', '{"type":"end"}'], "invalid_message", 1008),
    ([START.replace("s16le", "f32le"), np.array([np.nan], "<f4").tobytes()], "audio_not_finite", 1008),
]


async def test_garbage_is_refused(
    new_app: NewApp, recognizer: RecognizerDouble, registry: CollectorRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    recognizer.gate.clear()  # so that a stream that was ended is not over
    async with listening(new_app()) as port:
        for messages, code, close in GARBAGE:
            async with talking(port) as talk:
                for message in messages:
                    await talk.send(message)
                if len(messages) > 1:
                    await talk.event("ready")
                await talk.problem(code, close)
                assert talk.connection.close_reason == code
        await until(lambda: recognizer.streams == recognizer.waiting == 0)
    closed = {code: registry.get_sample_value("ser_streams_closed_total", {"code": code}) for code in ("1008", "1009")}
    assert closed == {"1008": len(GARBAGE) - 1, "1009": 1}
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_bad_wishes_are_named(new_app: NewApp) -> None:
    async with listening(new_app()) as port, talking(port) as talk:
        await talk.send(START.replace("}", ',"windw":1,"hop":0}'))
        problem = await talk.problem("invalid_options", 1008)
        assert problem["status"] == 422
        assert [(error["field"], error["kind"]) for error in problem["errors"]] == [
            ("hop", "invalid"),
            ("windw", "unknown"),
        ]


async def test_a_stream_that_stalls_is_closed(new_app: NewApp) -> None:
    async def stall(port: int, messages: list[str | bytes]) -> None:
        async with talking(port) as talk:
            sending = asyncio.create_task(_send_slowly(talk.connection.send, messages))
            if messages:
                await talk.event("ready")
            problem = await talk.problem("stream_idle", 1008)
            assert problem["status"] == 408
            await sending

    cases: list[list[str | bytes]] = [[], [START], [START, SECOND], [START, b"", b"", b"", b"", b"", b"", b""]]
    async with listening(new_app(header_timeout=0.3, stream_idle_timeout=0.3)) as port:
        await asyncio.gather(*(stall(port, messages) for messages in cases))


async def _send_slowly(send: Callable[[str | bytes], Any], messages: list[str | bytes]) -> None:
    for message in messages:
        await send(message)
        await asyncio.sleep(0.02)


async def test_the_time_that_answers_take_is_no_stall(new_app: NewApp, recognizer: RecognizerDouble) -> None:
    recognizer.gate.clear()
    async with listening(new_app(stream_idle_timeout=0.2)) as port, talking(port) as talk:
        await talk.start(late="wait", window=1)
        await talk.send(SECOND)
        await until(lambda: recognizer.waiting == 1)
        await asyncio.sleep(0.4)
        recognizer.gate.set()
        await talk.event("window")
        await talk.end()
        await asyncio.sleep(0.3)  # and nothing more is asked of a client that has ended
        assert [event["type"] for event in await talk.rest()] == ["result"]


async def test_a_stream_may_not_go_on_for_ever(new_app: NewApp) -> None:
    async with listening(new_app(max_stream_duration=0.5)) as port, talking(port) as long, talking(port) as old:
        await long.start(window=0.1)
        await old.start()
        await long.send(SECOND[:8000])
        await long.event("window")
        await long.send(SECOND[:2])
        await long.problem("audio_too_long", 1008)
        await old.problem("audio_too_long", 1008)


async def test_late_windows_are_left_out(
    new_app: NewApp, recognizer: RecognizerDouble, registry: CollectorRegistry
) -> None:
    recognizer.gate.clear()
    async with listening(new_app()) as port, talking(port) as talk:
        await talk.start(window=1)
        await talk.send(SECOND)
        await until(lambda: recognizer.waiting == 1)
        for _ in range(5):
            await talk.send(SECOND)
        await talk.send(b"")
        await asyncio.sleep(0.1)
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
    assert registry.get_sample_value("ser_stream_delay_seconds_sum") == pytest.approx(0.2, abs=0.2)


async def test_who_waits_for_every_window_is_read_no_faster(new_app: NewApp, recognizer: RecognizerDouble) -> None:
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
        await asyncio.sleep(0.3)
        assert len(recognizer.clips) == 1
        before = sent
        await asyncio.sleep(0.2)
        assert sent == before < 1200, "what the sockets hold is full"
        recognizer.gate.set()
        for number in range(40):
            event = await talk.event("window")
            assert (event["start"], event["skipped"]) == (30.0 * number, 0)
        await sending
    assert recognizer.most_waiting == 1


@pytest.mark.parametrize(
    ("error", "code", "close"),
    [
        (WorkerDead("down"), "worker_dead", 1013),
        (InferenceFailed("The model failed on this audio."), "inference_failed", 1011),
        (DeadlineExceeded("late"), "deadline_exceeded", 1013),
        (Draining("over"), "draining", 1012),
        (RuntimeError("secret"), "internal_error", 1011),
    ],
)
async def test_failures_end_the_stream_after_what_was_answered(
    new_app: NewApp,
    recognizer: RecognizerDouble,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    code: str,
    close: int,
) -> None:
    recognizer.faults += [None, error]
    async with listening(new_app()) as port, talking(port) as talk:
        await talk.start(window=1, late="wait")
        await talk.send(SECOND * 2)
        await talk.event("window")
        problem = await talk.problem(code, close)
        assert "secret" not in json.dumps(problem)
    assert any("failed unexpectedly" in record.getMessage() for record in caplog.records) is (code == "internal_error")


@pytest.mark.parametrize("late", ["skip", "wait"])
async def test_a_full_queue_is_no_end(
    new_app: NewApp,
    recognizer: RecognizerDouble,
    registry: CollectorRegistry,
    monkeypatch: pytest.MonkeyPatch,
    late: str,
) -> None:
    monkeypatch.setattr("service.api.stream_answers._QUEUE_PAUSE", 0.01)
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


async def test_an_utterance_waits_for_room_until_its_time_is_over(
    new_app: NewApp, recognizer: RecognizerDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.api.stream_answers._QUEUE_PAUSE", 0.01)
    recognizer.faults += [QueueFull("Full.")] * 1000
    async with listening(new_app(timeout=0.2)) as port, talking(port) as talk:
        await talk.start(window=30)
        await talk.send(words(2.5).tobytes())
        await talk.problem("deadline_exceeded", 1013)


async def test_streams_take_turns(new_app: NewApp, recognizer: RecognizerDouble) -> None:
    """However many there are, few of their clips wait before those of requests."""
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
            assert recognizer.permits == 1, "streams take none"
            recognizer.gate.set()
            assert (await posting).status_code == 200
        for talk in talks:
            assert [(await talk.event("window"))["channel"] for _ in range(2)] == [0, 1]
    assert recognizer.most_waiting == TURNS + 1


@pytest.mark.parametrize("stage", ["connected", "started", "heard", "waiting", "ended", "turn"])
async def test_a_client_that_leaves(
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
                if stage in ("heard", "waiting", "ended", "turn"):
                    await talk.send(SECOND if stage != "heard" else SECOND[:1000])
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
        assert turns._value == TURNS, "every turn was given back"
        recognizer.gate.set()
        async with talking(port) as talk:
            await talk.start(window=1)
            await talk.send(SECOND)
            await talk.event("window")
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert (registry.get_sample_value("ser_streams_closed_total", {"code": "1005"}) or 0) >= 1


async def test_a_client_that_says_goodbye(new_app: NewApp, registry: CollectorRegistry) -> None:
    async with listening(new_app()) as port:
        for code in (1001, 4321):
            async with talking(port) as talk:
                await talk.start()
                await talk.connection.close(code)
    assert registry.get_sample_value("ser_streams_closed_total", {"code": "1001"}) == 1
    assert registry.get_sample_value("ser_streams_closed_total", {"code": "other"}) == 1


async def test_a_stream_ends_with_what_it_has_when_the_service_does(
    new_app: NewApp, recognizer: RecognizerDouble
) -> None:
    async with listening(new_app()) as port, talking(port) as talk, talking(port) as ending, talking(port) as new:
        await talk.start(late="wait")
        await talk.send(words(2.5).tobytes()[:-1600])
        await talk.event("utterance")
        await talk.event("window")
        recognizer.gate.clear()
        await ending.start(window=1)
        await ending.send(SECOND)
        await ending.end()
        await until(lambda: recognizer.waiting > 0)
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
        assert ending.connection.close_code == 1000, "it has all that it wanted"
        await new.send(START)
        assert [event["type"] for event in await new.rest()] == ["ready", "result", "problem"]
        assert recognizer.streams == 0


async def test_a_server_that_stops_says_so(new_app: NewApp, recognizer: RecognizerDouble) -> None:
    recognizer.gate.clear()
    async with AsyncExitStack() as stack:
        async with listening(new_app()) as port:
            talk = await stack.enter_async_context(talking(port))
            await talk.start(window=1)
            await talk.send(SECOND)
            await until(lambda: recognizer.waiting == 1)
        assert await talk.closed() == 1012
        assert recognizer.streams == 0


@pytest.mark.parametrize(
    ("error", "status", "code", "retry"),
    [
        (TooManyStreams("Full.", 10), 429, "too_many_streams", "10"),
        (ModelLoading("Not yet."), 503, "model_loading", "1"),
        (Draining("Over."), 503, "draining", "1"),
        (WorkerDead("Down.", 7), 503, "worker_dead", "7"),
    ],
)
async def test_refusals_come_before_the_stream(
    new_app: NewApp, recognizer: RecognizerDouble, error: ServiceError, status: int, code: str, retry: str
) -> None:
    recognizer.refusals.append(error)
    async with listening(new_app()) as port:
        headers = await refused(port, status, code)
        assert headers["retry-after"] == retry
        async with talking(port) as talk:
            await talk.start()


async def test_where_nothing_is_no_stream_is(new_app: NewApp) -> None:
    from websockets.asyncio.client import connect
    from websockets.exceptions import InvalidStatus

    async with listening(new_app()) as port:
        for path in ("/", "/recognize", "/streams", "/stream/", "//stream"):
            with pytest.raises(InvalidStatus) as caught:
                await connect(f"ws://127.0.0.1:{port}{path}", proxy=None)
            assert caught.value.response.status_code == 404
            assert json.loads(caught.value.response.body)["code"] == "not_found"
        async with http_client(port) as client:
            assert (await client.get("/stream")).status_code == 404


async def test_a_client_that_does_not_read_is_closed(
    new_app: NewApp, recognizer: RecognizerDouble, registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.api.stream_session._LAST_WORDS", 0.1)
    monkeypatch.setattr("service.api.stream_protocol._CLOSE_SECONDS", 0.1)
    app = new_app(stream_idle_timeout=0.4)
    async with listening(app, send_buffer=4096) as port, talking(port, max_queue=1, receive_buffer=4096) as talk:
        await talk.start(window=0.1, hop=0.1, late="wait")
        sending = asyncio.create_task(_send_slowly(talk.connection.send, [SECOND] * 1000))
        await until(lambda: registry.get_sample_value("ser_streams_closed_total", {"code": "1008"}) == 1)
        assert recognizer.streams == 0
        async with http_client(port) as client:
            assert (await client.post("/recognize", files={"file": ("a.wav", wav())})).status_code == 200
        await asyncio.wait((sending,))
        with pytest.raises(ConnectionClosed):
            sending.result()
    assert len(recognizer.clips) < 2000


async def test_a_stream_leaves_nothing_behind(new_app: NewApp, recognizer: RecognizerDouble) -> None:
    before = _of_streams()
    async with listening(new_app()) as port:
        for _ in range(3):
            async with talking(port) as talk:
                await talk.start(window=1)
                assert _of_streams() - before  # it sees them at all
                await talk.send(SECOND * 3)
                await talk.end()
                await talk.rest()
        recognizer.clips.clear()
        assert _of_streams() - before == Counter()


def _of_streams() -> Counter[str]:
    """Everything that streams are made of, but for the connections themselves."""
    gc.collect()
    names = [
        type(each).__name__
        for each in gc.get_objects()
        if str(type(each).__module__).startswith("service.api.stream")
        and type(each).__module__ != "service.api.stream_protocol"
    ]
    return Counter(names)
