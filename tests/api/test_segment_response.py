"""`granularity=segment`: the contents of the document and of the lines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from service.api.segment_response import wants_lines
from service.errors import InferenceFailed, InvalidOptions, QueueFull, ServiceError
from tests.api.answers import fields, problem
from tests.api.conftest import serving
from tests.api.double import RecognizerDouble
from tests.api.segment_lines import NDJSON, ask, parsed, problem_at_the_end, streamed, whole
from tests.api.sounds import call, wav
from tests.audio_samples import encode, speech
from tests.inference.fake_backend import WIDTH

AGENT = [(1.0, 4.0), (9.0, 13.0)]
CUSTOMER = [(5.0, 8.0)]
CALL = call(15.0, AGENT, CUSTOMER)
M4A = encode("m4a", speech(), 16_000)
TIMES = [(1.0, 4.0), (5.0, 8.0), (9.0, 13.0)]
SILENCE = call(15.0, [], [])


def times(segments: list[dict[str, Any]]) -> list[tuple[float, float]]:
    return [(round(segment["start"]), round(segment["end"])) for segment in segments]


def scores(result: dict[str, Any]) -> list[float]:
    return [row["score"] for row in result["scores"]]


def check_overall(overall: dict[str, Any], segments: list[dict[str, Any]]) -> None:
    """It is the mean of the segments, weighted by how long they last."""
    seconds = [segment["end"] - segment["start"] for segment in segments]
    np.testing.assert_allclose(scores(overall), np.average([scores(each) for each in segments], 0, seconds), atol=1e-6)
    assert sum(scores(overall)) == pytest.approx(1, abs=1e-5)
    assert {"label": overall["label"], "score": overall["score"]} == max(
        overall["scores"], key=lambda row: row["score"]
    )


async def test_a_mix(client: httpx.AsyncClient, recognizer: RecognizerDouble) -> None:
    answer = await whole(client, CALL)
    assert set(answer) == {"id", "model", "audio", "label", "score", "scores", "segments"}
    audio = answer["audio"]
    assert set(audio) == {"duration", "sampling_rate", "channels", "narrow_band", "truncated", "speech_seconds"}
    assert (audio["duration"], audio["sampling_rate"], audio["channels"]) == (15.0, 8000, 2)
    assert audio["speech_seconds"] == pytest.approx(10, abs=0.5)
    segments = answer["segments"]
    assert times(segments) == [(1, 4), (5, 8), (9, 13)]
    assert all(set(segment) == {"start", "end", "label", "score", "scores"} for segment in segments)
    assert audio["speech_seconds"] == pytest.approx(sum(each["end"] - each["start"] for each in segments))
    assert len({segment["score"] for segment in segments}) == 3
    check_overall(answer, segments)
    assert [clip.sampling_rate for clip in recognizer.clips] == [8000] * 3
    assert all(clip.trim for clip in recognizer.clips)


async def test_a_file_that_ends_early(client: httpx.AsyncClient) -> None:
    cut = CALL[: len(CALL) * 2 // 3]
    answer = await whole(client, cut)
    assert answer["audio"]["truncated"]
    assert answer["audio"]["duration"] == pytest.approx(10, abs=0.1)
    assert len(answer["segments"]) == 3
    assert (await streamed(client, cut))[-1]["audio"] == answer["audio"]
    flac = call(60.0, AGENT, CUSTOMER, container="FLAC")  # which shows only at its end that it ends early
    assert (await streamed(client, flac[: len(flac) * 2 // 3]))[-1]["audio"]["truncated"]
    assert not (await streamed(client, flac))[-1]["audio"]["truncated"]


async def test_bytes_behind_the_audio_are_mentioned(client: httpx.AsyncClient) -> None:
    assert (await whole(client, CALL + b"behind" * 100))["audio"]["unread_bytes"] == 600


async def test_split_channels(client: httpx.AsyncClient) -> None:
    answer = await whole(client, CALL, channels="split")
    assert set(answer) == {"id", "model", "audio", "channels"}
    assert "speech_seconds" not in answer["audio"]
    for index, (channel, turns) in enumerate(zip(answer["channels"], (AGENT, CUSTOMER), strict=True)):
        assert set(channel) == {"channel", "speech_seconds", "label", "score", "scores", "segments"}
        assert channel["channel"] == index
        assert times(channel["segments"]) == turns
        assert {segment["channel"] for segment in channel["segments"]} == {index}
        assert channel["speech_seconds"] == pytest.approx(sum(end - begin for begin, end in turns), abs=0.3)
        check_overall(channel, channel["segments"])


async def test_one_channel(client: httpx.AsyncClient) -> None:
    answer = await whole(client, CALL, channels="1")
    assert times(answer["segments"]) == CUSTOMER
    assert "channel" not in answer["segments"][0]


async def test_a_silent_channel_is_not_recognised(client: httpx.AsyncClient, recognizer: RecognizerDouble) -> None:
    answer = await whole(client, call(6.0, [(1.0, 4.0)], []), channels="split", embedding="utterance")
    assert answer["channels"][1] == {
        "channel": 1,
        "speech_seconds": 0,
        "label": None,
        "score": None,
        "scores": [],
        "segments": [],
    }
    assert len(answer["channels"][0]["segments"]) == 1
    assert len(recognizer.clips) == 1


async def test_no_speech_at_all(client: httpx.AsyncClient, recognizer: RecognizerDouble) -> None:
    answer = await whole(client, SILENCE, embedding="utterance")
    assert answer["audio"]["speech_seconds"] == 0
    del answer["id"], answer["model"], answer["audio"]
    assert answer == {"label": None, "score": None, "scores": [], "segments": []}
    start, result = await streamed(client, SILENCE)
    assert start["audio"] == {"sampling_rate": 8000, "channels": 2}
    assert result["label"] is None
    assert recognizer.clips == []


@pytest.mark.parametrize("encoding", ["float", "base64"])
async def test_embeddings(client: httpx.AsyncClient, encoding: str) -> None:
    answer = await whole(client, CALL, embedding="utterance", encoding=encoding)
    if encoding == "base64":
        assert all(each["embedding"]["shape"] == [WIDTH] for each in (answer, *answer["segments"]))
        return
    seconds = [segment["end"] - segment["start"] for segment in answer["segments"]]
    mean = np.average([segment["embedding"] for segment in answer["segments"]], 0, seconds)
    np.testing.assert_allclose(answer["embedding"], mean, atol=1e-6)


async def test_labels(client: httpx.AsyncClient) -> None:
    answer = await whole(client, CALL, labels="sad,happy", label_language="zh")
    for result in (answer, *answer["segments"]):
        assert [row["label"] for row in result["scores"]] == ["难过", "开心"]
        assert sum(scores(result)) == pytest.approx(1, abs=1e-5)


async def test_times_are_those_of_the_file(client: httpx.AsyncClient) -> None:
    answer = await whole(client, CALL, start="4.5", end="8.5")
    assert times(answer["segments"]) == [(5, 8)]
    assert answer["audio"]["duration"] == 15.0


async def test_trim_is_passed_on(client: httpx.AsyncClient, recognizer: RecognizerDouble) -> None:
    await whole(client, CALL, trim="false")
    assert not any(clip.trim for clip in recognizer.clips)


@pytest.mark.parametrize("channels", ["mix", "split"])
async def test_lines_equal_the_document(client: httpx.AsyncClient, channels: str) -> None:
    answer = await whole(client, CALL, channels=channels)
    lines = await streamed(client, CALL, channels=channels)
    start, *segments, result = lines
    assert start["model"] == answer["model"]
    assert start["audio"] == {"sampling_rate": 8000, "channels": 2}
    assert times(segments) == TIMES
    assert [segment.get("channel") for segment in segments] == ([0, 1, 0] if channels == "split" else [None] * 3)
    for segment in segments:
        del segment["type"]
    parts = answer["channels"] if channels == "split" else [answer]
    known = [segment for part in parts for segment in part.pop("segments")]
    assert sorted(segments, key=lambda each: each["end"]) == sorted(known, key=lambda each: each["end"])
    timings = result.pop("timings")
    assert set(timings) == {"decode", "queue", "preprocess", "inference"}
    assert timings["inference"] == pytest.approx(3 * 0.003)
    del answer["id"], answer["model"], result["type"]
    assert result == answer


async def test_the_options_may_be_in_the_form(client: httpx.AsyncClient) -> None:
    form = {"granularity": "segment", "channels": "split"}
    response = await client.post("/recognize", files={"file": ("call", CALL)}, data=form)
    assert [len(channel["segments"]) for channel in response.json()["channels"]] == [2, 1]
    response = await client.post(
        "/recognize", files={"file": CALL}, data=form, headers={"Accept": "application/x-ndjson"}
    )
    assert len(parsed(response)) == 5


async def test_server_timing(client: httpx.AsyncClient) -> None:
    response = await ask(client, CALL)
    timing = dict(part.split(";dur=") for part in response.headers["server-timing"].split(", "))
    assert float(timing["inference"]) == pytest.approx(9.0)  # ms, of three utterances
    assert float(timing["decode"]) > 0
    assert "x-cache" not in response.headers


async def test_other_granularities_are_always_one_document(client: httpx.AsyncClient) -> None:
    headers = {"Content-Type": "audio/wav", "Accept": "application/x-ndjson"}
    response = await client.post("/recognize", content=wav(), headers=headers)
    assert response.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("options", "faults"),
    [
        ({"window": "1"}, {"window": "conflict"}),
        ({"hop": "1"}, {"hop": "conflict"}),
        ({"embedding": "frame"}, {"embedding": "conflict"}),
        ({"labels": "joy"}, {"labels": "unknown_label"}),
        ({"channels": "2"}, {"channels": "channel_out_of_range"}),
        ({"start": "20"}, {"start": "start_out_of_range"}),
    ],
)
@pytest.mark.parametrize("accept", ["*/*", NDJSON])
async def test_invalid_options(
    client: httpx.AsyncClient, options: dict[str, str], faults: dict[str, str], accept: str
) -> None:
    response = await ask(client, CALL, accept=accept, **options)
    if (
        accept == NDJSON and "start" in options
    ):  # whether it lies in the file shows at its end, when the answer has begun
        problem_at_the_end(parsed(response), 422, InvalidOptions.code)
    else:
        assert fields(problem(response, 422, InvalidOptions.code)) == faults


@pytest.mark.parametrize(
    ("sound", "status", "code"),
    [(b"no audio", 415, "audio_not_decodable"), (b"", 422, "audio_empty"), (M4A[:-4000], 422, "audio_truncated")],
)
@pytest.mark.parametrize("accept", ["*/*", NDJSON])
async def test_invalid_audio_is_refused_before_the_response_begins(
    client: httpx.AsyncClient, recognizer: RecognizerDouble, sound: bytes, status: int, code: str, accept: str
) -> None:
    problem(await ask(client, sound, accept=accept), status, code)
    assert recognizer.permits == 0


async def test_a_file_longer_than_max_duration(new_app: Callable[..., FastAPI]) -> None:
    async with serving(new_app(max_duration=10)) as client:
        detail = problem(await ask(client, CALL), 413, "audio_too_long")["detail"]
        assert "granularity" not in detail


@pytest.mark.parametrize("granularity", ["utterance", "frame"])
async def test_a_file_too_long_for_one_utterance_suggests_segments(
    new_app: Callable[..., FastAPI], granularity: str
) -> None:
    async with serving(new_app(max_utterance_duration=10, max_duration=20)) as client:
        refused = await ask(client, CALL, granularity=granularity)
        detail = problem(refused, 413, "audio_too_long")["detail"]
        assert detail == "The audio is longer than 10 s. With granularity=segment it may last 20 s."
        assert len((await whole(client, CALL))["segments"]) == 3


async def test_segments_are_refused_in_a_batch(client: httpx.AsyncClient, recognizer: RecognizerDouble) -> None:
    files = [("files", ("call", CALL))]
    response = await client.post("/recognize/batch", files=files, data={"granularity": "segment"})
    document = problem(response, 422, InvalidOptions.code)
    assert fields(document) == {"granularity": "not_in_a_batch"}
    assert "/recognize" in document["detail"]
    assert recognizer.clips == []
    assert recognizer.permits == 0


async def test_one_failed_segment_fails_the_request(
    client: httpx.AsyncClient, recognizer: RecognizerDouble, registry: CollectorRegistry
) -> None:
    recognizer.faults += [None, InferenceFailed("Failed.")]
    problem(await ask(client, CALL), 500, "inference_failed")
    recognizer.faults[:] = [None, None, InferenceFailed("Failed.")]
    lines = await streamed(client, CALL)
    problem_at_the_end(lines, 500, "inference_failed")
    assert len(lines) <= 4
    labels = {"route": "/recognize", "method": "POST", "code": "500"}
    assert registry.get_sample_value("ser_http_requests_total", labels) == 2


async def test_a_crash_reveals_nothing(
    client: httpx.AsyncClient, recognizer: RecognizerDouble, caplog: pytest.LogCaptureFixture
) -> None:
    recognizer.faults += [None, RuntimeError("secret")]
    lines = await streamed(client, CALL)
    problem_at_the_end(lines, 500, ServiceError.code)
    assert "secret" not in str(lines)
    assert [record.levelname for record in caplog.records if record.exc_info] == ["ERROR"]


async def test_a_full_queue_is_retried(client: httpx.AsyncClient, recognizer: RecognizerDouble) -> None:
    recognizer.faults += [None, QueueFull("Full.", 0.01), QueueFull("Full.", 0.01)]
    assert len((await whole(client, CALL))["segments"]) == 3
    assert len(recognizer.clips) == 5


async def test_metrics(client: httpx.AsyncClient, registry: CollectorRegistry, recognizer: RecognizerDouble) -> None:
    lines = await streamed(client, CALL)
    value = registry.get_sample_value
    assert value("ser_segments_total") == 3
    predicted = [line["label"] for line in lines[1:-1]]
    assert sum(value("ser_predictions_total", {"label": label}) or 0 for label in set(predicted)) == 3
    assert value("ser_segment_request_duration_seconds_count") == 1
    assert value("ser_http_request_duration_seconds_count", {"route": "/recognize"}) is None
    assert value("ser_stage_duration_seconds_count", {"stage": "decode"}) == 1
    assert recognizer.recordings == 0


@pytest.mark.parametrize(
    "accept",
    [
        "application/x-ndjson",
        "Application/X-NDJSON",
        "application/x-ndjson; charset=utf-8",
        "application/x-ndjson;q=0.1",
        "application/json;q=0.5, application/x-ndjson;q=0.5",
        "text/html, application/x-ndjson;q=0.9, */*;q=0.8",
        "application/x-ndjson, application/json;q=0.2, */*",
        "application/x-ndjson;q=1.000,",
    ],
)
def test_lines_are_chosen(accept: str) -> None:
    assert wants_lines([accept])


@pytest.mark.parametrize(
    "accept",
    [
        "",
        "*/*",
        "application/*",
        "application/json",
        "application/json, application/x-ndjson;q=0.9",
        "application/x-ndjson;q=0",
        "application/x-ndjson;q=0.000, */*",
        "application/x-ndjson;q=0.5, */*",
        "application/x-ndjson;q=0.5, application/*;q=0.6",
        "application/x-ndjson;q=high",
        "application/x-ndjson;q=2",
        "application/x-ndjson;q=-1",
        ";;;,,,=",
        "text/plain;format=application/x-ndjson",
    ],
)
def test_a_document_is_chosen(accept: str) -> None:
    assert not wants_lines([accept])


def test_several_accept_headers_are_combined() -> None:
    assert not wants_lines([])
    assert wants_lines(["application/json;q=0.1", "application/x-ndjson"])
    assert not wants_lines(["application/json", "application/x-ndjson;q=0.1"])
