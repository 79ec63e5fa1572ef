"""Recordings of up to an hour, with real servers and the embedded model."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx
import pytest

from loadtests.accuracy.synthetic_calls import CODECS, encode, make_call, source_clips
from tests.api.segment_lines import NDJSON
from tests.api.server.test_server import metric, resident_bytes, serving
from tests.audio_samples import encode as encode_clip
from tests.audio_samples import speech

PATIENCE = 900.0


def recording(seconds: float, codec: str) -> bytes:
    """A two-channel call at 8 kHz, in a codec of `synthetic_calls` or a format of `tests.audio_samples`."""
    samples = make_call(source_clips(None), seconds, seed=3).samples
    return encode(samples, codec) if codec in CODECS else encode_clip(codec, samples, 8000)


@dataclass
class Answered:
    """What came of a recording: all lines, when the first segment came, and when the last line did (seconds)."""

    lines: list[dict[str, object]] = field(default_factory=list)
    first: float = 0.0
    last: float = 0.0

    @property
    def segments(self) -> int:
        return sum(line["type"] == "segment" for line in self.lines)


def ask(url: str, sound: bytes, **options: str) -> Answered:
    """The lines for a recording; times count from the end of the upload, nearly."""
    answered = Answered()
    headers = {"Content-Type": "audio/wav", "Accept": NDJSON}
    params = {"granularity": "segment", "channels": "split", **options}
    with (
        httpx.Client(base_url=url, timeout=PATIENCE) as client,
        client.stream("POST", "/recognize", content=sound, headers=headers, params=params) as response,
    ):
        assert response.status_code == 200, response.read()
        began = time.monotonic()
        for text in response.iter_lines():
            answered.lines.append(json.loads(text))
            answered.last = time.monotonic() - began
            if not answered.first and answered.segments:
                answered.first = answered.last
    assert answered.lines[-1]["type"] == "result", answered.lines[-1]
    return answered


@pytest.mark.slow
@pytest.mark.parametrize("codec", ["mu-law", "wma"])  # decoded in the process, and in a child
def test_memory_does_not_grow_with_the_recording(codec: str, record_property: Callable[[str, object], None]) -> None:
    peaks, answers = {}, {}
    for seconds in (300, 3600):
        sound = recording(seconds, codec)
        with serving() as (process, url):
            answers[seconds] = ask(url, sound)
            peaks[seconds] = resident_bytes(process)
    for name, value in (("peaks", peaks), ("first", answers[3600].first), ("last", answers[3600].last)):
        record_property(name, str(value))
    assert answers[3600].segments > 10 * answers[300].segments > 100
    assert peaks[3600] <= 1.2 * peaks[300]
    assert answers[3600].first < 0.1 * answers[3600].last


@pytest.mark.slow
def test_the_document_for_an_hour_takes_little_memory_too() -> None:
    peaks = {}
    for seconds in (300, 3600):
        sound = recording(seconds, "mu-law")
        with serving() as (process, url):
            response = httpx.post(
                f"{url}/recognize",
                content=sound,
                headers={"Content-Type": "audio/wav"},
                params={"granularity": "segment", "channels": "split"},
                timeout=PATIENCE,
            )
            assert response.status_code == 200
            peaks[seconds] = resident_bytes(process)
    assert peaks[3600] <= 1.2 * peaks[300]


@contextmanager
def posting(url: str) -> Iterator[list[float]]:
    """Short clips, one after the other in the background; how long each has waited for its answer."""
    sound, waits, over = encode_clip("wav-s16", speech(), 16_000), [], threading.Event()

    def post() -> None:
        with httpx.Client(base_url=url, timeout=PATIENCE) as client:
            while not over.wait(0.05):
                began = time.monotonic()
                response = client.post("/recognize", content=sound, headers={"Content-Type": "audio/wav"})
                assert response.status_code == 200
                waits.append(time.monotonic() - began)

    thread = threading.Thread(target=post)
    thread.start()
    try:
        yield waits
    finally:
        over.set()
        thread.join()


@pytest.mark.slow
def test_short_requests_are_answered_while_long_ones_run(record_property: Callable[[str, object], None]) -> None:
    sound = recording(600, "mu-law")
    with serving() as (_, url):
        long = [threading.Thread(target=ask, args=(url, sound)) for _ in range(4)]
        with posting(url) as waits:
            for each in long:
                each.start()
            for each in long:
                each.join()
        waits.sort()
        record_property("waits", f"{len(waits)}, P50 {waits[len(waits) // 2]:.3f} s, longest {waits[-1]:.3f} s")
        assert len(waits) > 20
        # Eight utterances are before it at worst; each takes the embedded model far less than 0.2 s.
        assert waits[int(0.95 * len(waits))] < 2.0
        with httpx.Client(base_url=url) as client:
            assert metric(client, "ser_segment_requests_in_flight ") == 0
