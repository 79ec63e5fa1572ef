"""`/stream` over real sockets, with a recognizer double."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from service.errors import (
    DeadlineExceeded,
    Draining,
    InferenceFailed,
    ModelLoading,
    ServiceError,
    TooManyStreams,
    WorkerDead,
)
from tests.api.double import RecognizerDouble
from tests.api.sockets import http_client, listening
from tests.api.stream.talking import SECOND, START, NewApp, check_counts, refused, talking, words
from tests.inference.running import until


async def test_a_stream_from_its_start_to_its_result(
    new_app: NewApp, recognizer: RecognizerDouble, registry: CollectorRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "service.requests")
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
    check_counts(registry, "1000", window=6, utterance=2, result=1, ready=1)
    line = next(record for record in caplog.records if record.getMessage() == "stream")
    assert {name: getattr(line, name) for name in ("request_id", "route", "status", "close_code", "audio_seconds")} == {
        "request_id": "my-call",
        "route": "/stream",
        "status": 101,
        "close_code": 1000,
        "audio_seconds": 8.0,
    }
    assert (line.windows, line.skipped_windows, line.utterances) == (6, 0, 2)  # type: ignore[attr-defined]


async def test_channels_are_recognised_separately(new_app: NewApp) -> None:
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


async def test_options_equal_those_of_requests(new_app: NewApp, recognizer: RecognizerDouble) -> None:
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


INVALID: list[tuple[list[str | bytes], str, int]] = [
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


async def test_invalid_messages_are_refused(
    new_app: NewApp, recognizer: RecognizerDouble, registry: CollectorRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    recognizer.gate.clear()  # so that the stream is still open after the end message
    async with listening(new_app()) as port:
        for messages, code, close in INVALID:
            async with talking(port) as talk:
                for message in messages:
                    await talk.send(message)
                if len(messages) > 1:
                    await talk.event("ready")
                await talk.problem(code, close)
                assert talk.connection.close_reason == code
        await until(lambda: recognizer.streams == recognizer.waiting == 0)
    closed = {code: registry.get_sample_value("ser_streams_closed_total", {"code": code}) for code in ("1008", "1009")}
    assert closed == {"1008": len(INVALID) - 1, "1009": 1}
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_invalid_options_are_named(new_app: NewApp) -> None:
    async with listening(new_app()) as port, talking(port) as talk:
        await talk.send(START.replace("}", ',"windw":1,"hop":0}'))
        problem = await talk.problem("invalid_options", 1008)
        assert problem["status"] == 422
        assert [(error["field"], error["kind"]) for error in problem["errors"]] == [
            ("hop", "invalid"),
            ("windw", "unknown"),
        ]


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
async def test_failures_end_the_stream_after_earlier_events(
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


@pytest.mark.parametrize(
    ("error", "status", "code", "retry"),
    [
        (TooManyStreams("Full.", 10), 429, "too_many_streams", "10"),
        (ModelLoading("Not yet."), 503, "model_loading", "1"),
        (Draining("Over."), 503, "draining", "1"),
        (WorkerDead("Down.", 7), 503, "worker_dead", "7"),
    ],
)
async def test_refusals_are_sent_before_the_stream_opens(
    new_app: NewApp, recognizer: RecognizerDouble, error: ServiceError, status: int, code: str, retry: str
) -> None:
    recognizer.refusals.append(error)
    async with listening(new_app()) as port:
        headers = await refused(port, status, code)
        assert headers["retry-after"] == retry
        async with talking(port) as talk:
            await talk.start()


async def test_other_paths_open_no_stream(new_app: NewApp) -> None:
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
