"""Streams with the embedded model: the events equal the answers of requests with the same audio."""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile
import soxr
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry

from service.api.app import create_app
from service.commands.open_model import find_model, start_opening
from service.inference.engine import Engine
from service.observability.metrics import Metrics
from service.observability.telemetry import Telemetry
from service.settings.settings import Settings
from tests.api.sockets import http_client, listening
from tests.api.stream.talking import Talk, talking
from tests.audio_samples import CLIPS
from tests.inference.running import LIMITS, until

PAUSE = 1.2


@dataclass
class Service:
    """A service with the embedded model."""

    port: int
    engine: Engine
    registry: CollectorRegistry
    client: httpx.AsyncClient

    async def post(self, samples: NDArray[Any], rate: int, **options: Any) -> dict[str, Any]:
        """The answer for samples of shape (time, channel) sent as a WAV file."""
        file = io.BytesIO()
        subtype = "PCM_16" if samples.dtype == np.int16 else "FLOAT"
        soundfile.write(file, samples, rate, format="WAV", subtype=subtype)
        response = await self.client.post(
            "/recognize", content=file.getvalue(), headers={"content-type": "audio/wav"}, params=options
        )
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer


@asynccontextmanager
async def service(tmp_path: Path, **settings: Any) -> AsyncIterator[Service]:
    chosen = Settings(**{"cache_dir": tmp_path, "answer_cache_bytes": 0, **settings})
    stored = find_model(chosen)
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    engine = Engine(start_opening(stored, chosen, few=True), LIMITS, Telemetry(metrics))
    async with listening(create_app(engine, chosen, metrics)) as port, http_client(port) as client:
        await engine.wait_ready()
        yield Service(port, engine, registry, client)


def call(rate: int = 16_000, clips: int = 3) -> tuple[NDArray[np.int16], list[tuple[float, float]]]:
    """A call of shape (time,) with a pause around each clip, and the start and end of each clip in seconds."""
    rng = np.random.default_rng(0)
    pieces, places, now = [], [], 0.0
    for path in [None, *CLIPS[:clips]]:
        if path is not None:
            samples, _ = soundfile.read(path, dtype="float32")
            pieces.append(samples)
            places.append((now, now + samples.size / 16_000))
            now = places[-1][1]
        pieces.append(rng.normal(0, 1e-4, round(PAUSE * 16_000)).astype(np.float32))
        now += PAUSE
    whole = np.concatenate(pieces)
    if rate != 16_000:
        whole = soxr.resample(whole, 16_000, rate)
    return (whole * 32767).clip(-32768, 32767).astype("<i2"), places


async def send_all(talk: Talk, samples: NDArray[Any], size: int) -> None:
    for begin in range(0, len(samples), size):
        await talk.send(samples[begin : begin + size].tobytes())
    await talk.end()


async def all_events(talk: Talk, samples: NDArray[Any], size: int = 2000) -> list[dict[str, Any]]:
    sending = asyncio.create_task(send_all(talk, samples, size))
    events = await talk.rest()
    await sending
    assert talk.connection.close_code == 1000
    return events


async def test_windows_and_utterances_equal_those_of_requests(tmp_path: Path) -> None:
    samples, places = call()
    async with service(tmp_path) as it:
        async with talking(it.port) as talk:
            await talk.start(sampling_rate=16_000, late="wait", embedding="utterance", labels=["happy", "sad", "angry"])
            events = await all_events(talk, samples)
        options = {"labels": "happy,sad,angry", "embedding": "utterance", "trim": "false"}
        windows = [event for event in events if event["type"] == "window"]
        assert len(windows) == 8
        for event in [*windows[::3], windows[-1]]:
            stretch = samples[round(event["start"] * 16_000) : round(event["end"] * 16_000)]
            answer = await it.post(stretch, 16_000, **options)
            assert {name: event[name] for name in ("label", "score", "scores", "embedding")} == {
                name: answer[name] for name in ("label", "score", "scores", "embedding")
            }, "equal, not only close"
        whole = await it.post(samples, 16_000, granularity="segment", **options)
    utterances = [event for event in events if event["type"] == "utterance"]
    segments = [{name: value for name, value in event.items() if name != "type"} for event in utterances]
    assert segments == whole["segments"]
    for event, (start, end) in zip(utterances, places, strict=True):
        assert abs(event["start"] - start) < 0.3
        assert abs(event["end"] - end) < 0.3
    result = events[-1]
    for name in ("label", "score", "scores", "embedding"):
        assert result[name] == whole[name]
    assert result["speech_seconds"] == whole["audio"]["speech_seconds"]
    assert result["duration"] == whole["audio"]["duration"]


async def test_a_mix_that_cancels_out_is_scored_as_its_loudest_channel(tmp_path: Path) -> None:
    """Files, segments, windows and utterances have the scores of that channel, and name it."""
    one, _ = call(clips=2)
    both = np.stack([one // 5 * 4, -one, 0 * one], axis=1)
    async with service(tmp_path) as it:
        for granularity in ("utterance", "frame", "segment"):
            mix = await it.post(both, 16_000, granularity=granularity)
            assert mix["audio"].pop("taken_channel") == 1
            alone = await it.post(both, 16_000, granularity=granularity, channels="1")
            assert {**mix, "id": alone["id"]} == alone
            assert "taken_channel" not in (await it.post(both[:, :1], 16_000, granularity=granularity))["audio"]
        async with talking(it.port) as talk:
            await talk.start(sampling_rate=16_000, channels=3, late="wait")
            events = await all_events(talk, both)
        async with talking(it.port) as talk:
            await talk.start(sampling_rate=16_000, channels=3, late="wait", select=1)
            alone_events = await all_events(talk, both)
    assert [event.pop("taken_channel") for event in events] == [1] * len(events)
    assert {event["type"] for event in events} == {"window", "utterance", "result"}
    assert sorted(events, key=str) == sorted(alone_events, key=str)


@pytest.mark.parametrize("encoding", ["s16le", "f32le"])
async def test_telephone_channels_equal_those_of_requests(tmp_path: Path, encoding: str) -> None:
    """Two channels at 8 kHz, which the service resamples."""
    left, _ = call(8000, clips=2)
    both: NDArray[Any] = np.stack([left, np.roll(left, 11_000)], axis=1)
    if encoding == "f32le":
        both = (both / 30_000).astype("<f4")
    async with service(tmp_path) as it:
        for select, index in (("split", 1), ("mix", None), (1, None)):
            async with talking(it.port) as talk:
                await talk.start(
                    sampling_rate=8000, encoding=encoding, channels=2, select=select, late="wait", window=2.5, trim=True
                )
                events = await all_events(talk, both, 3333)
            windows = [event for event in events if event["type"] == "window" and event.get("channel") == index]
            for event in windows[::4]:
                stretch = both[round(event["start"] * 8000) : round(event["end"] * 8000)]
                answer = await it.post(stretch, 8000, channels=select)
                expected = answer if index is None else answer["channels"][index]
                assert event["scores"] == expected["scores"]
            whole = await it.post(both, 8000, granularity="segment", channels=select)
            if select == "split":
                for mine, theirs in zip(events[-1]["channels"], whole["channels"], strict=True):
                    theirs.pop("segments")
                    assert mine == theirs
            else:
                assert events[-1]["scores"] == whole["scores"]


@pytest.mark.slow
async def test_windows_are_answered_in_real_time(tmp_path: Path) -> None:
    """In real time, each window is answered within a hop and the time of inference."""
    samples, _ = call(clips=1)
    hop, rate = 0.5, 16_000
    async with service(tmp_path) as it, talking(it.port) as talk:
        await talk.start(sampling_rate=rate, window=1.0, hop=hop)
        sent: list[tuple[int, float]] = []

        async def speak() -> None:
            began = monotonic()
            for begin in range(0, len(samples), rate // 20):
                piece = samples[begin : begin + rate // 20]
                await asyncio.sleep(began + (begin + len(piece)) / rate - monotonic())
                await talk.send(piece.tobytes())
                sent.append((begin + len(piece), monotonic()))
            await talk.end()

        speaking = asyncio.create_task(speak())
        delays, skipped = [], 0
        while (event := await talk.event())["type"] != "result":
            now = monotonic()
            if event["type"] == "window":
                skipped += event["skipped"]
                delays.append(now - next(at for until, at in sent if until >= round(event["end"] * rate)))
        await speaking
        inference = _mean_of(it.registry, "ser_stage_duration_seconds", stage="inference")
        assert len(delays) + skipped >= 6
        assert max(delays) < hop + inference
        assert _mean_of(it.registry, "ser_stream_delay_seconds") < hop


def _mean_of(registry: CollectorRegistry, name: str, **labels: str) -> float:
    total = registry.get_sample_value(f"{name}_sum", labels) or 0.0
    count = registry.get_sample_value(f"{name}_count", labels) or 0.0
    return total / count


async def test_draining_sends_the_result(tmp_path: Path) -> None:
    samples, places = call(clips=2)
    async with service(tmp_path) as it, talking(it.port) as talk:
        await talk.start(sampling_rate=16_000, late="wait", window=30, hop=30)
        first = round((places[0][1] + 1.0) * 16_000)
        await talk.send(samples[:first].tobytes())
        assert (await talk.event())["type"] == "utterance"
        draining = asyncio.create_task(it.engine.drain(10.0))
        events = await talk.rest()
        assert [event["type"] for event in events] == ["window", "result", "problem"]
        assert events[1]["speech_seconds"] == pytest.approx(places[0][1] - places[0][0], abs=0.4)
        assert (events[2]["code"], talk.connection.close_code) == ("draining", 1012)
        await draining


@pytest.mark.slow
async def test_many_streams_do_not_slow_down_requests(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Beside fifty streams, ten of them failing, all requests of five clients are answered correctly and soon."""
    threads, files = threading.active_count(), _open_files()
    samples, _ = call(8000, clips=2)
    clip, _ = soundfile.read(CLIPS[0], dtype="int16")
    async with service(tmp_path, stream_idle_timeout=5.0) as it:
        expected = await it.post(clip, 16_000)
        ready = asyncio.Barrier(51)

        async def live(number: int) -> list[dict[str, Any]]:
            async with talking(it.port) as talk:
                await talk.start(sampling_rate=8000)
                await ready.wait()
                sending = asyncio.create_task(_speak(talk, samples, number))
                events = await talk.rest(90)
                await sending
                return events

        async def posts(over: asyncio.Event) -> list[float]:
            return [await _timed(it, clip, expected) async for _ in _until(over)]

        async def five_posters(over: asyncio.Event) -> list[float]:
            return [each for of_one in await asyncio.gather(*(posts(over) for _ in range(5))) for each in of_one]

        over = asyncio.Event()
        asyncio.get_running_loop().call_later(4.0, over.set)
        before = await five_posters(over)
        over = asyncio.Event()
        streams = [asyncio.create_task(live(number)) for number in range(50)]
        async with asyncio.timeout(30):
            await ready.wait()
        posting = asyncio.create_task(five_posters(over))
        results = await asyncio.gather(*streams)
        over.set()
        during = await posting
        streams_left = it.registry.get_sample_value("ser_streams")
    kinds = [events[-1].get("code", events[-1]["type"]) for events in results]
    assert {kind: kinds.count(kind) for kind in kinds} == {"result": 40, "invalid_message": 5, "stream_idle": 5}
    assert streams_left == 0
    p99_before, p99 = (float(np.percentile(times, 99)) for times in (before, during))
    summary = f"{len(before)} posts before: median {np.median(before):.3f} s, P99 {p99_before:.3f} s; "
    summary += f"{len(during)} beside 50 streams: median {np.median(during):.3f} s, P99 {p99:.3f} s"
    record_property("posts", summary)
    # Each request waits for four others and the clips of four streams, and 50 clients run in this process as well.
    assert p99 < 6 * p99_before + 1.0, summary
    # Threads of pools that were shut down end with a delay.
    await until(lambda: threading.active_count() <= threads + 1 and _open_files() <= files + 2)


async def _until(over: asyncio.Event) -> AsyncIterator[None]:
    while not over.is_set():
        yield


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def _timed(it: Service, clip: NDArray[np.int16], expected: dict[str, Any]) -> float:
    began = monotonic()
    answer = await it.post(clip, 16_000)
    took = monotonic() - began
    assert answer["scores"] == expected["scores"]
    return took


async def _speak(talk: Talk, samples: NDArray[np.int16], number: int) -> None:
    began = monotonic()
    for begin in range(0, len(samples), 800):
        piece = samples[begin : begin + 800]
        await asyncio.sleep(began + number * 0.02 + (begin + len(piece)) / 8000 - monotonic())
        if number % 10 == 7 and begin > 16_000:
            await talk.send("garbage")
            return
        if number % 10 == 8 and begin > 16_000:
            return
        await talk.send(piece.tobytes())
    await talk.end()
