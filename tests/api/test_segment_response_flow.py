"""The order, timing and cancellation of long responses with granularity=segment."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from time import monotonic
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from loadtests.common.process_resources import children
from service.api.app import create_app
from service.api.server.http_protocol import UnreadResponseProtocol
from service.commands.serve import engine_limits
from service.errors import DeadlineExceeded, QueueFull
from service.inference.backend import BatchLimits
from service.inference.engine import Engine
from service.observability.metrics import Metrics
from service.observability.telemetry import Telemetry
from service.preprocess.decode import decode
from service.results import Clip, ClipOutput, Timings
from service.settings.settings import Settings
from tests.api.answers import problem
from tests.api.conftest import serving
from tests.api.double import RecognizerDouble
from tests.api.segment_lines import NDJSON, ask, lines_of, parsed, problem_at_the_end, streamed, whole
from tests.api.sockets import PATIENCE, Connection, connected, head, http_client, listening
from tests.api.sounds import RATE, call, wav
from tests.audio_samples import encode, speech
from tests.inference.fake_backend import FakeControl, fingerprint
from tests.inference.running import until

TURNS = [(start + 0.5, start + 3.5) for start in range(0, 60, 5)]
CALL = call(60.0, TURNS)
"""A minute with twelve utterances."""

PATH = "/recognize?granularity=segment"


class FirstClipLast(RecognizerDouble):
    """Answers the first clip after the second."""

    async def recognize(self, clip: Clip, *, deadline: float) -> tuple[ClipOutput, Timings]:
        number = len(self.clips)
        answered = await super().recognize(clip, deadline=deadline)
        if number == 0:
            await until(lambda: len(self.clips) > 1 and self.waiting == 0)
        return answered


async def test_segments_are_sent_in_order_although_a_later_one_is_ready_first(registry: CollectorRegistry) -> None:
    recognizer = FirstClipLast()
    async with serving(create_app(recognizer, Settings(answer_cache_bytes=0), Metrics(registry))) as client:
        lines = await streamed(client, CALL)
    ends = [line["end"] for line in lines[1:-1]]
    assert len(ends) == len(TURNS)
    assert all(one < other for one, other in pairwise(ends))


async def test_two_segments_are_queued_at_a_time(client: httpx.AsyncClient, recognizer: RecognizerDouble) -> None:
    recognizer.gate.clear()
    asking = asyncio.create_task(ask(client, CALL, channels="split"))
    await until(lambda: recognizer.waiting == 2)
    await asyncio.sleep(0.1)
    assert len(recognizer.clips) == 2
    recognizer.gate.set()
    assert (await asking).status_code == 200
    assert recognizer.most_waiting == 2
    assert recognizer.most_permits == 1


@asynccontextmanager
async def streaming(port: int, sound: bytes = CALL, **options: str) -> AsyncIterator[httpx.Response]:
    """A response that is read line by line."""
    headers = {"Content-Type": "audio/wav", "Accept": NDJSON}
    params = {"granularity": "segment", **options}
    async with (
        http_client(port) as client,
        client.stream("POST", "/recognize", content=sound, headers=headers, params=params) as response,
    ):
        yield response


async def all_lines(port: int) -> list[dict[str, Any]]:
    async with streaming(port) as response:
        return [line async for line in lines_of(response)]


async def test_lines_are_sent_as_soon_as_they_are_known(
    new_app: Callable[..., FastAPI], recognizer: RecognizerDouble
) -> None:
    recognizer.gate.clear()
    async with listening(new_app()) as port, streaming(port) as response:
        assert response.headers["x-accel-buffering"] == "no"
        lines = lines_of(response)
        async with asyncio.timeout(PATIENCE):
            assert (await anext(lines))["type"] == "start"
            await until(lambda: recognizer.waiting == 2)
            recognizer.gate.set()
            assert (await anext(lines))["start"] == pytest.approx(0.5, abs=0.2)
            rest = [line async for line in lines]
    assert [line["type"] for line in rest] == ["segment"] * (len(TURNS) - 1) + ["result"]


async def test_progress_is_reported(new_app: Callable[..., FastAPI], recognizer: RecognizerDouble) -> None:
    async with serving(new_app()) as client:
        recognizer.gate.clear()
        headers = {"X-Request-ID": "long", "Content-Type": "audio/wav"}
        task = asyncio.create_task(client.post(PATH, content=CALL, headers=headers))
        await until(lambda: recognizer.waiting == 2)
        state = (await client.get("/requests/long")).json()
        assert state == {"state": "running", "segments": {"answered": 0, "until": 0}}
        recognizer.gate.set()
        assert (await task).status_code == 200
        assert (await client.get("/requests/long")).json() == {"state": "unknown"}


async def test_the_outcome_is_logged(
    client: httpx.AsyncClient, recognizer: RecognizerDouble, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="service.requests")
    await streamed(client, CALL)
    recognizer.faults += [DeadlineExceeded("late")] * 2
    await streamed(client, CALL)
    good, late = (vars(record) for record in caplog.records if record.message == "request")
    assert (good["status"], good["segments"], good["audio_seconds"]) == (200, len(TURNS), 60.0)
    assert good["inference_seconds"] == pytest.approx(0.003 * len(TURNS))
    assert good["decode_seconds"] > 0
    assert (late["status"], late["code"], late["segments"]) == (504, "deadline_exceeded", 0)


# Disconnects.


async def posted(connection: Connection, path: str = PATH, accept: str = NDJSON) -> None:
    asking = head(len(CALL), path).replace(b"\r\n\r\n", f"\r\nAccept: {accept}\r\n\r\n".encode())
    await connection.send(asking + CALL)


@pytest.mark.parametrize("accept", [NDJSON, "application/json"])
async def test_a_disconnect_cancels_the_recognition(
    new_app: Callable[..., FastAPI], recognizer: RecognizerDouble, registry: CollectorRegistry, accept: str
) -> None:
    recognizer.gate.clear()
    app = new_app()
    async with listening(app) as port:
        async with connected(port) as connection:
            await posted(connection, accept=accept)
            await until(lambda: recognizer.waiting == 2)
        await until(lambda: recognizer.permits == 0)
        assert recognizer.cancelled == 2
        labels = {"route": "/recognize", "method": "POST", "code": "499"}
        await until(lambda: registry.get_sample_value("ser_http_requests_total", labels) == 1)
        assert recognizer.recordings == 0
        recognizer.gate.set()
        async with http_client(port) as client:  # the next request is served
            assert len((await whole(client, CALL))["segments"]) == len(TURNS)


@pytest.fixture
def _short_unread_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(UnreadResponseProtocol, "unread_timeout", 0.3)


async def test_a_disconnect_ends_the_decoder_process(
    new_app: Callable[..., FastAPI], recognizer: RecognizerDouble
) -> None:
    recognizer.gate.clear()
    compressed = encode("mp3", np.tile(speech(8000), 20), 8000)
    before = children(os.getpid())
    async with listening(new_app()) as port:
        async with streaming(port, compressed) as response:
            lines = lines_of(response)
            assert (await anext(lines))["type"] == "start"
            await until(lambda: recognizer.waiting == 2)
            assert children(os.getpid())
        await until(lambda: recognizer.permits == 0)
        await until(lambda: len(children(os.getpid())) <= len(before))


MANY = call(120.0, *[[(start, start + 2.0) for start in range(1, 116, 4)]] * 8, rate=2000)
"""Eight channels with thirty utterances each."""


@pytest.mark.usefixtures("_short_unread_timeout")
async def test_a_client_that_reads_nothing_is_disconnected(
    new_app: Callable[..., FastAPI], recognizer: RecognizerDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Long lines, so that a few of them fill the buffers of the kernel.
    monkeypatch.setattr("service.recognition.answers._name", lambda label, _: label.en + 20_000 * "x")
    asking = head(len(MANY), f"{PATH}&channels=split").replace(b"\r\n\r\n", f"\r\nAccept: {NDJSON}\r\n\r\n".encode())
    loop = asyncio.get_running_loop()
    async with listening(new_app()) as port:
        with socket.socket() as unread:
            unread.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            unread.setblocking(False)
            await loop.sock_connect(unread, ("127.0.0.1", port))
            await loop.sock_sendall(unread, asking + MANY)
            await until(lambda: len(recognizer.clips) > 0)
            began = monotonic()
            await until(lambda: recognizer.permits == 0)
            assert monotonic() - began < 10
    assert len(recognizer.clips) < 120  # of 232


# Deadlines, limits, draining.


class AnswersThreeClips(RecognizerDouble):
    """Answers three clips and no more."""

    async def recognize(self, clip: Clip, *, deadline: float) -> tuple[ClipOutput, Timings]:
        if len(self.clips) == 3:
            self.gate.clear()
        return await super().recognize(clip, deadline=deadline)


async def test_a_deadline_during_the_response(registry: CollectorRegistry) -> None:
    recognizer = AnswersThreeClips()
    async with serving(create_app(recognizer, Settings(answer_cache_bytes=0), Metrics(registry))) as client:
        lines = await streamed(client, CALL, timeout="3")
        problem_at_the_end(lines, 504, "deadline_exceeded")
        assert len(lines) == 5
        assert recognizer.permits == 0
        problem(await ask(client, CALL, timeout="0.2"), 504, "deadline_exceeded")


async def test_segments_have_their_own_deadline(new_app: Callable[..., FastAPI], recognizer: RecognizerDouble) -> None:
    recognizer.gate.clear()
    async with serving(new_app(timeout=0.3, segment_timeout=30)) as client:
        asking = asyncio.create_task(ask(client, CALL))
        await asyncio.sleep(0.5)
        recognizer.gate.set()
        assert (await asking).status_code == 200


async def test_clients_may_only_shorten_the_deadline(
    new_app: Callable[..., FastAPI], recognizer: RecognizerDouble
) -> None:
    recognizer.gate.clear()
    async with serving(new_app(timeout=30, segment_timeout=0.3)) as client:
        problem(await ask(client, CALL, timeout="20"), 504, "deadline_exceeded")


@pytest.fixture
async def control() -> AsyncIterator[FakeControl]:
    control = FakeControl(limits=BatchLimits(clips=1, seconds=60.0))
    yield control
    control.release()


@asynccontextmanager
async def engine_behind(control: FakeControl, **settings: Any) -> AsyncIterator[tuple[Engine, httpx.AsyncClient]]:
    """A client of an application with a real engine."""
    metrics = Metrics(CollectorRegistry())
    chosen = Settings(answer_cache_bytes=0, **settings)
    engine = Engine(control.load, engine_limits(chosen), Telemetry(metrics))
    async with serving(create_app(engine, chosen, metrics)) as client:
        await engine.wait_ready()
        yield engine, client
        control.release()


@pytest.mark.parametrize("in_form", [False, True])
async def test_too_many_segment_requests(control: FakeControl, in_form: bool) -> None:
    control.run_gate.clear()
    async with engine_behind(control, max_segment_requests=2, caller_share=1) as (engine, client):
        under_way = [asyncio.create_task(ask(client, CALL)) for _ in range(2)]
        await until(lambda: engine.state().queued_clips == 2 * 2 - 1)
        assert (engine.state().recordings, engine.state().max_recordings) == (2, 2)
        if in_form:
            refused = await client.post("/recognize", files={"file": CALL}, data={"granularity": "segment"})
        else:
            refused = await ask(client, b"not read")
        assert "granularity=segment" in problem(refused, 429, QueueFull.code)["detail"]
        assert int(refused.headers["retry-after"]) >= 1
        assert 'ser_requests_rejected_total{reason="queue_full"} 1.0' in (await client.get("/metrics")).text
        short = asyncio.create_task(client.post("/recognize", content=wav(), headers={"Content-Type": "audio/wav"}))
        await until(lambda: engine.state().queued_clips == 2 * 2)
        control.run_gate.set()
        assert {(await each).status_code for each in (*under_way, short)} == {200}
        assert engine.state().recordings == 0
        assert (await ask(client, CALL)).status_code == 200


async def test_draining_finishes_requests_in_time(control: FakeControl) -> None:
    control.run_gate.clear()
    async with engine_behind(control) as (engine, client):
        asking = asyncio.create_task(streamed(client, CALL))
        await until(control.running.is_set)
        draining = asyncio.create_task(engine.drain(PATIENCE))
        await asyncio.sleep(0.05)
        problem(await ask(client, CALL), 503, "draining")
        control.run_gate.set()
        assert (await asking)[-1]["type"] == "result"
        await draining


async def test_draining_ends_other_requests_with_a_problem(control: FakeControl) -> None:
    control.run_gate.clear()
    async with engine_behind(control) as (engine, client):
        asking = asyncio.create_task(ask(client, CALL, accept=NDJSON))
        await until(control.running.is_set)
        draining = asyncio.create_task(engine.drain(0.1))
        problem_at_the_end(parsed(await asking), 503, "draining")
        control.release()
        await draining


async def test_a_stop_ends_running_requests_with_a_problem(
    new_app: Callable[..., FastAPI], recognizer: RecognizerDouble
) -> None:
    recognizer.gate.clear()
    async with listening(new_app(), grace=1) as port:
        reading = asyncio.create_task(all_lines(port))
        await until(lambda: recognizer.waiting == 2)
    problem_at_the_end(await reading, 503, "draining")


async def test_other_requests_wait_behind_two_segments_of_each_long_one(control: FakeControl) -> None:
    """Four long requests queue two utterances each; a short request is answered after these at the latest."""
    control.limits = BatchLimits(clips=1, seconds=60.0)
    async with engine_behind(control) as (engine, client):
        control.run_gate.clear()
        long = [asyncio.create_task(ask(client, CALL)) for _ in range(4)]
        await until(control.running.is_set)
        await until(lambda: engine.state().queued_clips == 4 * 2 - 1)
        sound = wav()
        short = asyncio.create_task(client.post("/recognize", content=sound, headers={"Content-Type": "audio/wav"}))
        await until(lambda: engine.state().queued_clips == 4 * 2)
        control.run_gate.set()
        assert (await short).status_code == 200
        clip = Clip(decode(sound, max_duration=1).samples[0], RATE)
        assert control.runs.index([fingerprint(clip)]) == 4 * 2  # after the running and the seven queued ones
        assert {(await each).status_code for each in long} == {200}


async def test_a_file_that_is_damaged_after_its_beginning(
    client: httpx.AsyncClient, recognizer: RecognizerDouble
) -> None:
    damaged = bytearray(call(60.0, TURNS, container="FLAC"))
    damaged[len(damaged) // 2 :] = bytes(len(damaged) - len(damaged) // 2)
    lines = await streamed(client, bytes(damaged))
    problem_at_the_end(lines, 422, "audio_truncated")
    assert len(lines) > 3
    problem(await ask(client, bytes(damaged)), 422, "audio_truncated")
    assert recognizer.permits == 0
