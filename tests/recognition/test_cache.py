"""The cache of answers: keys, evictions, and how much memory it takes."""

from __future__ import annotations

import gc
import io
import tracemalloc
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from service.observability.observer import Observer
from service.recognition.answers import file_result
from service.recognition.cache import LARGEST_SHARE, AnswerCache, CacheControl, CachedFile, Key, file_key, memory_of
from service.recognition.options import parse_options
from service.recognition.scores import recognition
from service.results import Clip, DecodedFile
from tests.inference.fake_backend import answer, model_info

MODEL = model_info()


class CacheObserver(Observer):
    """What the cache reports: the bytes that it takes, and how many answers it has evicted."""

    def __init__(self) -> None:
        self.bytes = self.evictions = 0

    def cache_changed(self, size: int) -> None:
        self.bytes = size

    def cache_evicted(self) -> None:
        self.evictions += 1


@pytest.fixture
def observer() -> CacheObserver:
    return CacheObserver()


def answer_of(seed: int, seconds: float = 3.0, **options: Any) -> tuple[Key, CachedFile]:
    """An answer as recognition makes it, without objects that others share."""
    asked = parse_options(options.items())
    samples = np.random.default_rng(seed).uniform(-0.3, 0.3, round(16_000 * seconds)).astype(np.float32)
    clip = Clip(samples, 16_000, frame_embeddings=asked.embedding == "frame")
    decoded = DecodedFile((clip,), seconds, 16_000, 1, narrow_band=False, truncated=False, unread_bytes=0)
    output = answer(clip, len(MODEL.labels))
    found = recognition(output, MODEL, granularity=asked.granularity, embedding=asked.embedding)
    cached = CachedFile(file_result(decoded, [found], asked), ("happy",), seconds)
    return file_key(io.BytesIO(str(seed).encode()), asked, MODEL), cached


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", CacheControl(read=True, store=True)),
        ("max-age=60", CacheControl(read=True, store=True)),
        ("no-cachet", CacheControl(read=True, store=True)),
        ("private", CacheControl(read=True, store=True)),
        ("max-age=0", CacheControl(read=False, store=True)),
        ("private, No-Cache", CacheControl(read=False, store=True)),
        ("no-store", CacheControl(read=False, store=False)),
    ],
)
def test_directives(header: str, expected: CacheControl) -> None:
    assert CacheControl.parse(header) == expected


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
def test_the_memory_counted_is_the_memory_taken(observer: CacheObserver, options: dict[str, Any]) -> None:
    cache = AnswerCache(2**30, observer)
    cache.put(*answer_of(0, **options))  # objects that all answers share
    counted_before = observer.bytes
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
    reported = observer.bytes - counted_before
    assert 0.85 * reported <= taken <= reported


def test_the_least_recently_used_are_evicted_when_the_cache_is_full(observer: CacheObserver) -> None:
    answers = [answer_of(seed) for seed in range(20)]
    size = memory_of(answers[0][1])
    cache = AnswerCache(10 * size, observer)
    for key, cached in answers[:10]:
        cache.put(key, cached)
    assert observer.evictions == 0
    assert observer.bytes == 10 * size
    assert cache.get(answers[0][0]) is answers[0][1]
    for key, cached in answers[10:15]:
        cache.put(key, cached)
    assert observer.evictions == 5
    assert observer.bytes == 10 * size
    known = [index for index, (key, _) in enumerate(answers) if cache.get(key) is not None]
    assert known == [0, *range(6, 15)]


def test_an_answer_that_would_evict_most_others_is_not_kept(observer: CacheObserver) -> None:
    key, large = answer_of(0, 20, granularity="frame")
    cache = AnswerCache(LARGEST_SHARE * memory_of(large) - 1, observer)
    cache.put(key, large)
    assert cache.get(key) is None
    cache.put(*answer_of(1, 19.9, granularity="frame"))
    assert observer.bytes > 0


def test_a_view_counts_as_the_array_that_it_keeps_in_memory() -> None:
    _, small = answer_of(0, granularity="frame")
    frames = small.result["frames"]
    whole = np.zeros((10_000, 9), np.float32)
    cut = replace(small, result={**small.result, "frames": {**frames, "scores": whole[:1]}})
    assert memory_of(cut) - memory_of(small) == whole.nbytes - frames["scores"].nbytes


def test_an_answer_that_is_replaced_counts_once(observer: CacheObserver) -> None:
    cache = AnswerCache(2**20, observer)
    key, cached = answer_of(0)
    for _ in range(3):
        cache.put(key, cached)
    assert observer.bytes == memory_of(cached)
    assert observer.evictions == 0
