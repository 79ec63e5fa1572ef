"""`open_stream` against the real application, over sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from emotion2vec_client import Disconnected, Problem, Stream, TimedOut, Unreachable, live_stream, open_stream
from emotion2vec_client.live_stream import ReadyEvent, StreamEvent
from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from pydantic import TypeAdapter

from service.api.app import create_app
from service.api.stream import messages
from service.errors import TooManyStreams, WorkerDead
from service.observability.metrics import Metrics
from service.recognition.live import stream
from service.settings.sources import load_settings
from tests.api.double import RecognizerDouble
from tests.api.sockets import listening
from tests.api.stream.talking import RATE, noise, words

KEY = "0123456789abcdef-first"


@asynccontextmanager
async def serving(recognizer: RecognizerDouble, **settings: Any) -> AsyncIterator[str]:
    app: FastAPI = create_app(recognizer, load_settings(**settings), Metrics(CollectorRegistry()))
    async with listening(app) as port:
        yield f"http://127.0.0.1:{port}{settings.get('root_path', '')}"


async def send_all(stream: Stream, samples: bytes) -> None:
    await stream.send(samples)
    await stream.end()


async def events_of(stream: Stream, samples: bytes) -> list[StreamEvent]:
    sending = asyncio.create_task(send_all(stream, samples))
    events = [event async for event in stream]
    await sending
    return events


async def test_a_stream_yields_its_events_up_to_the_result() -> None:
    async with serving(RecognizerDouble()) as url:
        samples = words(2.5).tobytes() * 10
        async with open_stream(url, sampling_rate=RATE, late="wait", window=2, embedding="utterance") as stream:
            assert TypeAdapter(ReadyEvent).validate_python(stream.ready) == stream.ready
            assert (stream.ready["id"], stream.ready["window"], stream.ready["hop"]) == (stream.request_id, 2.0, 1.0)
            events = await events_of(stream, samples)
        kinds = [event["type"] for event in events]
        assert kinds[-1] == "result"
        assert {*kinds} == {"window", "utterance", "result"}
        for event in events:
            assert TypeAdapter(StreamEvent).validate_python(event, strict=True) == event
        async with open_stream(url, sampling_rate=RATE, channels=2, select="split", encoding="f32le") as stream:
            last = (await events_of(stream, bytes(8 * RATE)))[-1]
        assert TypeAdapter(StreamEvent).validate_python(last, strict=True) == last
        assert last["type"] == "result"
        assert [channel["channel"] for channel in last["channels"]] == [0, 1]


async def test_events_and_options_have_the_keys_of_the_server() -> None:
    for client_type, server_type in (
        (live_stream.ReadyEvent, messages.ReadyEvent),
        (live_stream.WindowEvent, stream.WindowEvent),
        (live_stream.UtteranceEvent, stream.UtteranceEvent),
        (live_stream.StreamResultEvent, stream.ResultEvent),
        (live_stream.StreamOverall, stream.ChannelOverall),
    ):
        assert client_type.__annotations__.keys() == server_type.__annotations__.keys()
    start = {"type", "sampling_rate", "encoding", "channels"}
    assert live_stream.StreamOptions.__annotations__.keys() == messages.Start.model_fields.keys() - start


async def test_errors_of_the_service_are_raised_as_problems() -> None:
    recognizer = RecognizerDouble()
    async with serving(recognizer) as url:
        recognizer.refusals.append(TooManyStreams("Full.", 7))
        with pytest.raises(Problem) as caught:
            async with open_stream(url, sampling_rate=RATE, request_id="mine"):
                pass
        problem = caught.value
        assert (problem.status, problem.code, problem.retry_after) == (429, "too_many_streams", 7.0)
        assert problem.request_id == "mine"
        with pytest.raises(Problem, match="sampling_rate") as caught:
            async with open_stream(url, sampling_rate=1, request_id="bad"):
                pass
        assert (caught.value.code, caught.value.request_id) == ("invalid_options", "bad")
        assert [error["field"] for error in caught.value.errors] == ["sampling_rate"]
        recognizer.faults.append(WorkerDead("Down."))
        async with open_stream(url, sampling_rate=RATE) as stream:
            with pytest.raises(Problem, match="Down") as caught:
                await events_of(stream, noise(3).tobytes())
            assert caught.value.status == 503
            with pytest.raises(Disconnected):
                await stream.send(bytes(2))
            with pytest.raises(Disconnected):
                await stream.end()


async def test_a_draining_server_sends_a_result_and_then_a_problem() -> None:
    recognizer = RecognizerDouble()
    async with serving(recognizer) as url, open_stream(url, sampling_rate=RATE) as stream:
        recognizer.draining.set()
        events = aiter(stream)
        assert (await anext(events))["type"] == "result"
        with pytest.raises(Problem) as caught:
            await anext(events)
        assert caught.value.code == "draining"


async def test_api_keys_and_a_path_prefix() -> None:
    async with serving(RecognizerDouble(), api_keys=KEY, root_path="/emotion") as url:
        async with open_stream(url, sampling_rate=RATE, api_key=KEY) as stream:
            await events_of(stream, b"")
        for key in (None, "wrong"):
            with pytest.raises(Problem) as caught:
                async with open_stream(url + "/", sampling_rate=RATE, api_key=key):
                    pass
            assert caught.value.status == 401


async def test_no_server_raises_unreachable_and_a_bad_url_value_error() -> None:
    with pytest.raises(Unreachable):
        async with open_stream("http://127.0.0.1:1", sampling_rate=RATE):
            pass
    with pytest.raises(ValueError, match="URL"):
        async with open_stream("ftp://127.0.0.1", sampling_rate=RATE):
            pass


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"SSH-2.0-OpenSSH_9\r\n", Disconnected),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", Problem),
        (b"", TimedOut),
    ],
)
async def test_a_response_that_is_not_a_websocket_handshake(
    answer: bytes, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("emotion2vec_client.live_stream._CONNECT_TIMEOUT", 10.0 if answer else 0.3)
    answered: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        answered.append(writer)
        if answer:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        with pytest.raises(error):
            async with open_stream(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", sampling_rate=RATE):
                pass
        for writer in answered:
            writer.close()


async def test_a_server_that_closes_the_connection_raises_disconnected() -> None:
    recognizer = RecognizerDouble()
    recognizer.gate.clear()
    async with serving(recognizer) as url:
        opening = open_stream(url, sampling_rate=RATE)
        stream = await opening.__aenter__()
        await stream.send(noise(3).tobytes())
    with pytest.raises(Disconnected):
        async for _ in stream:
            pass
    await opening.__aexit__(None, None, None)
