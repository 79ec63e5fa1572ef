"""The cache of answers over HTTP: hits, misses, what clients may ask for, and what is not kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from service.errors import InferenceFailed, QueueFull
from tests.api.answers import problem
from tests.api.conftest import serving
from tests.api.double import MASKED, RecognizerDouble
from tests.api.sounds import wav
from tests.inference.running import until

CLIP = wav()
AS_WAV = {"content-type": "audio/wav", "x-request-id": "same"}
SIZE = 2**20

# Options that change the answer.
OPTIONS: list[dict[str, Any]] = [
    {},
    {"granularity": "frame"},
    {"granularity": "frame", "window": "0.1", "hop": "0.04"},
    {"embedding": "utterance"},
    {"embedding": "utterance", "encoding": "base64"},
    {"embedding": "frame"},
    {"labels": "sad,angry", "label_language": "zh"},
    {"labels": "angry,sad", "label_language": "zh"},
    {"channels": "split"},
    {"channels": "0"},
    {"trim": "false"},
    {"start": "0.1"},
    {"end": "0.4"},
]


@pytest.fixture
async def cached(new_app: Callable[..., FastAPI]) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an application with an answer cache."""
    async with serving(new_app(answer_cache_bytes=SIZE)) as client:
        yield client


async def post(
    client: httpx.AsyncClient, clip: bytes = CLIP, cache_control: str | None = None, **options: Any
) -> httpx.Response:
    headers = AS_WAV | ({} if cache_control is None else {"cache-control": cache_control})
    response = await client.post("/recognize", content=clip, headers=headers, params=options)
    assert response.status_code == 200, response.text
    return response


def counted(registry: CollectorRegistry, name: str, **labels: str) -> float:
    value = registry.get_sample_value(f"ser_cache_{name}", labels)
    assert value is not None
    return value


@pytest.mark.parametrize("options", OPTIONS)
async def test_a_hit_is_the_same_answer_byte_for_byte_without_the_model(
    cached: httpx.AsyncClient, recognizer: RecognizerDouble, options: dict[str, Any]
) -> None:
    first = await post(cached, **options)
    runs = len(recognizer.clips)
    second = await post(cached, **options)
    assert (first.headers["x-cache"], second.headers["x-cache"]) == ("miss", "hit")
    assert second.content == first.content
    assert len(recognizer.clips) == runs > 0
    timing = dict(stage.split(";dur=") for stage in second.headers["server-timing"].split(", "))
    assert float(timing.pop("decode")) > 0, "the time of looking it up"
    assert set(timing.values()) == {"0.000"}


async def test_the_key_depends_on_bytes_and_options_but_not_on_timeout_or_encoding_of_the_request(
    cached: httpx.AsyncClient, registry: CollectorRegistry
) -> None:
    for options in OPTIONS:
        assert (await post(cached, **options)).headers["x-cache"] == "miss"
    assert (await post(cached, CLIP[:-4] + b"\0\0\0\0")).headers["x-cache"] == "miss"
    assert (await post(cached, timeout="5", channels="mix")).headers["x-cache"] == "hit"
    form = await cached.post("/recognize", files={"audio": ("other name", CLIP)}, data={"trim": "true"})
    assert form.headers["x-cache"] == "hit"
    assert counted(registry, "requests_total", result="miss") == len(OPTIONS) + 1
    assert counted(registry, "requests_total", result="hit") == 2


@pytest.mark.parametrize("field", ["id", "revision", "backend", "device", "dtype"])
async def test_each_model_has_its_own_answers(
    cached: httpx.AsyncClient, recognizer: RecognizerDouble, field: str
) -> None:
    await post(cached)
    changed: Any = {field: "other"}
    recognizer.model = replace(MASKED, **changed)
    other = await post(cached)
    assert other.headers["x-cache"] == "miss"
    assert other.json()["model"][field] == "other"


async def test_an_upload_that_is_spooled_to_disk(cached: httpx.AsyncClient) -> None:
    clip = wav(40)
    assert len(clip) > 2 * 2**20
    first, second = await post(cached, clip), await post(cached, clip)
    assert second.headers["x-cache"] == "hit"
    assert second.content == first.content


@pytest.mark.parametrize("directive", ["no-cache", "No-Cache", "max-age=0", "private, no-cache"])
async def test_no_cache_computes_the_answer_again(
    cached: httpx.AsyncClient, recognizer: RecognizerDouble, registry: CollectorRegistry, directive: str
) -> None:
    assert (await post(cached, cache_control=directive)).headers["x-cache"] == "miss"
    assert (await post(cached)).headers["x-cache"] == "hit", "what was computed anew is kept"
    again = await post(cached, cache_control=directive)
    assert again.headers["x-cache"] == "miss"
    assert len(recognizer.clips) == 2
    assert counted(registry, "requests_total", result="bypass") == 2
    assert counted(registry, "requests_total", result="miss") == 0


async def test_no_store_keeps_no_answer(cached: httpx.AsyncClient, registry: CollectorRegistry) -> None:
    for _ in range(2):
        assert (await post(cached, cache_control="no-store")).headers["x-cache"] == "miss"
    assert counted(registry, "bytes") == 0
    assert (await post(cached)).headers["x-cache"] == "miss"
    assert (await post(cached, cache_control="no-store")).headers["x-cache"] == "miss"


async def test_without_a_cache(new_app: Callable[..., FastAPI], recognizer: RecognizerDouble) -> None:
    async with serving(new_app(answer_cache_bytes=0)) as client:
        for _ in range(2):
            assert "x-cache" not in (await post(client)).headers
    assert len(recognizer.clips) == 2


async def test_errors_are_not_kept(cached: httpx.AsyncClient, recognizer: RecognizerDouble) -> None:
    recognizer.faults += [InferenceFailed("Failed."), QueueFull("Full.")]
    for status, code in ((500, "inference_failed"), (429, "queue_full")):
        response = await cached.post("/recognize", content=CLIP, headers=AS_WAV)
        problem(response, status, code)
        assert "x-cache" not in response.headers
    for _ in range(2):
        problem(await cached.post("/recognize", content=b"text", headers=AS_WAV), 415, "audio_not_decodable")
    assert (await post(cached)).headers["x-cache"] == "miss"


async def test_permits_and_options_apply_to_hits(cached: httpx.AsyncClient, recognizer: RecognizerDouble) -> None:
    await post(cached)
    recognizer.refusals.append(QueueFull("Full."))
    problem(await cached.post("/recognize", content=CLIP, headers=AS_WAV), 429, "queue_full")
    bad = await cached.post("/recognize", content=CLIP, headers=AS_WAV, params={"labels": "joy"})
    problem(bad, 422, "invalid_options")
    assert (await post(cached)).headers["x-cache"] == "hit"
    assert recognizer.permits == 0


async def test_the_limit_of_frame_embeddings_applies_to_hits(new_app: Callable[..., FastAPI]) -> None:
    async with serving(new_app(max_duration=1, answer_cache_bytes=SIZE)) as client:
        clip = wav(1)
        await post(client, clip, embedding="frame")
        batch = await client.post("/recognize/batch", files=[("files", ("a", clip))] * 3, data={"embedding": "frame"})
        codes = [item.get("problem", {}).get("code") for item in batch.json()["items"]]
        assert sorted(map(str, codes)) == ["None", "None", "audio_too_long"]


async def test_each_file_of_a_batch_is_looked_up(
    cached: httpx.AsyncClient, recognizer: RecognizerDouble, registry: CollectorRegistry
) -> None:
    clips = [wav(seed=seed) for seed in range(3)]
    alone = (await post(cached, clips[1])).json()
    files = [("files", ("a", clip)) for clip in clips]
    first = await cached.post("/recognize/batch", files=files)
    second = await cached.post("/recognize/batch", files=files)
    assert (first.headers["x-cache"], second.headers["x-cache"]) == ("miss", "hit")
    assert first.json()["items"] == second.json()["items"]
    assert first.json()["items"][1]["result"] == {k: v for k, v in alone.items() if k not in ("id", "model")}
    assert len(recognizer.clips) == 3
    assert counted(registry, "requests_total", result="hit") == 4
    fresh = await cached.post("/recognize/batch", files=files, headers={"cache-control": "no-cache"})
    assert fresh.headers["x-cache"] == "miss"
    assert len(recognizer.clips) == 6


async def test_a_batch_with_a_problem_is_no_hit(cached: httpx.AsyncClient) -> None:
    files = [("files", ("a", CLIP)), ("files", ("b", b"text"))]
    for _ in range(2):
        assert (await cached.post("/recognize/batch", files=files)).headers["x-cache"] == "miss"


async def test_hits_are_counted_by_label(cached: httpx.AsyncClient, registry: CollectorRegistry) -> None:
    label = (await post(cached)).json()["label"]
    await post(cached)
    assert registry.get_sample_value("ser_predictions_total", {"label": label}) == 2
    assert registry.get_sample_value("ser_stage_duration_seconds_count", {"stage": "decode"}) == 1


async def test_concurrent_requests_do_not_interfere(cached: httpx.AsyncClient, recognizer: RecognizerDouble) -> None:
    recognizer.gate.clear()
    patient = [asyncio.create_task(post(cached)) for _ in range(4)]
    hasty = asyncio.create_task(cached.post("/recognize", content=CLIP, headers=AS_WAV, params={"timeout": "0.2"}))
    problem(await hasty, 504, "deadline_exceeded")
    await until(lambda: recognizer.waiting == 4)
    patient.pop().cancel()
    await until(lambda: recognizer.waiting == 3)
    recognizer.gate.set()
    answers = await asyncio.gather(*patient)
    assert len({response.content for response in answers}) == 1
    assert (await post(cached)).headers["x-cache"] == "hit"
