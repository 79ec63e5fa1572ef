"""The answer cache: hits, requests that bypass it, and its memory."""

from __future__ import annotations

import asyncio
import gc
import io
import tracemalloc
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from service.errors import InferenceFailed, QueueFull
from service.observability.metrics import Metrics
from service.observability.telemetry import Telemetry
from service.recognition.answers import file_result
from service.recognition.cache import LARGEST_SHARE, AnswerCache, CacheControl, CachedFile, Key, file_key, memory_of
from service.recognition.options import parse_options
from service.recognition.scores import recognition
from service.results import Clip, DecodedFile
from tests.api.answers import problem
from tests.api.conftest import serving
from tests.api.double import MASKED, RecognizerDouble
from tests.api.sounds import wav
from tests.inference.fake_backend import answer, model_info
from tests.inference.running import until

CLIP = wav()
AS_WAV = {"content-type": "audio/wav", "x-request-id": "same"}
SIZE = 2**20
MODEL = model_info()

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


@pytest.mark.parametrize("header", ["", "max-age=60", "no-cachet", "private"])
def test_other_directives_are_ignored(header: str) -> None:
    assert CacheControl.parse(header) == CacheControl(read=True, store=True)


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


def answer_of(seed: int, seconds: float = 3.0, **options: Any) -> tuple[Key, CachedFile]:
    """An answer that shares no objects with others."""
    parsed = parse_options(options.items())
    samples = np.random.default_rng(seed).uniform(-0.3, 0.3, round(16_000 * seconds)).astype(np.float32)
    clip = Clip(samples, 16_000, frame_embeddings=parsed.embedding == "frame")
    decoded = DecodedFile((clip,), seconds, 16_000, 1, narrow_band=False)
    output = answer(clip, len(MODEL.labels))
    found = recognition(output, MODEL, granularity=parsed.granularity, embedding=parsed.embedding)
    cached = CachedFile(file_result(decoded, [found], parsed), ("happy",), seconds)
    return file_key(io.BytesIO(str(seed).encode()), parsed, MODEL), cached


@pytest.mark.parametrize(
    "options",
    [
        {},
        pytest.param({"granularity": "frame"}, marks=pytest.mark.slow),
        pytest.param({"embedding": "frame", "encoding": "base64"}, marks=pytest.mark.slow),
        {"embedding": "utterance", "granularity": "frame", "window": "0.1"},
        pytest.param({"channels": "split"}, marks=pytest.mark.slow),
    ],
)
def test_the_counted_memory_is_the_memory_used(options: dict[str, Any]) -> None:
    registry = CollectorRegistry()
    cache = AnswerCache(2**30, Telemetry(Metrics(registry)))
    cache.put(*answer_of(0, **options))  # allocates what all answers share
    counted_before = counted(registry, "bytes")
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for seed in range(1, 201):
            cache.put(*answer_of(seed, **options))
        gc.collect()
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    reported = counted(registry, "bytes") - counted_before
    assert 0.85 * reported <= taken <= reported


def test_the_least_recently_used_answers_are_evicted() -> None:
    registry = CollectorRegistry()
    answers = [answer_of(seed) for seed in range(20)]
    size = memory_of(answers[0][1])
    cache = AnswerCache(10 * size, Telemetry(Metrics(registry)))
    for key, cached in answers[:10]:
        cache.put(key, cached)
    assert counted(registry, "evictions_total") == 0
    assert counted(registry, "bytes") == 10 * size
    assert cache.get(answers[0][0]) is answers[0][1]
    for key, cached in answers[10:15]:
        cache.put(key, cached)
    assert counted(registry, "evictions_total") == 5
    assert counted(registry, "bytes") == 10 * size
    known = [index for index, (key, _) in enumerate(answers) if cache.get(key) is not None]
    assert known == [0, *range(6, 15)]


def test_an_answer_that_would_evict_most_others_is_not_kept() -> None:
    registry = CollectorRegistry()
    key, large = answer_of(0, 20, granularity="frame")
    cache = AnswerCache(LARGEST_SHARE * memory_of(large) - 1, Telemetry(Metrics(registry)))
    cache.put(key, large)
    assert cache.get(key) is None
    cache.put(*answer_of(1, 19.9, granularity="frame"))
    assert counted(registry, "bytes") > 0


def test_a_view_counts_the_memory_of_its_base_array() -> None:
    _, small = answer_of(0, granularity="frame")
    frames = small.result["frames"]
    whole = np.zeros((10_000, 9), np.float32)
    cut = replace(small, result={**small.result, "frames": {**frames, "scores": whole[:1]}})
    assert memory_of(cut) - memory_of(small) == whole.nbytes - frames["scores"].nbytes


def test_a_replaced_answer_is_counted_once() -> None:
    registry = CollectorRegistry()
    cache = AnswerCache(SIZE, Telemetry(Metrics(registry)))
    key, cached = answer_of(0)
    for _ in range(3):
        cache.put(key, cached)
    assert counted(registry, "bytes") == memory_of(cached)
    assert counted(registry, "evictions_total") == 0
