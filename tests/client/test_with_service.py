"""Both clients against the real application: options, answers and errors match."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from emotion2vec_client import Answer, AsyncClient, BatchAnswer, Client, ModelDetails, Options, Problem, Retries
from emotion2vec_client.types import ResultEvent, SegmentEvent, StartEvent
from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from pydantic import TypeAdapter

from service.api.app import create_app
from service.data import EXAMPLES
from service.errors import QueueFull
from service.observability.metrics import Metrics
from service.recognition import options as server_options
from service.settings.sources import load_settings
from tests.api.double import RecognizerDouble
from tests.api.sockets import listening

HAPPY = EXAMPLES / "happy.wav"
KEY = "0123456789abcdef"


def app_of(recognizer: RecognizerDouble, **settings: Any) -> FastAPI:
    return create_app(recognizer, load_settings(answer_cache_bytes=0, **settings), Metrics(CollectorRegistry()))


@asynccontextmanager
async def client_of(app: FastAPI) -> AsyncIterator[AsyncClient]:
    async with (
        app.router.lifespan_context(app),
        AsyncClient("http://localhost", transport=httpx.ASGITransport(app)) as client,
    ):
        yield client


def check(expected_type: Any, answer: Any) -> None:
    """Every value has its declared type, and every key is declared: validation drops undeclared keys."""
    assert TypeAdapter(expected_type).validate_python(answer, strict=True) == answer


def test_options_have_the_names_of_the_service() -> None:
    assert {*Options.__annotations__, "timeout"} >= server_options.OPTIONS.keys()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"channels": "split", "embedding": "utterance"},
        {"granularity": "frame", "window": 1, "labels": ["angry", "sad"], "label_language": "zh"},
        {"embedding": "frame", "start": 0.5, "end": 1.5, "trim": False},
        {"embedding": "utterance", "encoding": "base64", "channels": 0},
        {"granularity": "segment", "embedding": "utterance"},
        {"granularity": "segment", "channels": "split"},
    ],
)
async def test_answers_match_their_types(options: Any) -> None:
    async with client_of(app_of(RecognizerDouble())) as client:
        answer = await client.recognize(HAPPY, timeout=30, request_id="mine", **options)
        check(Answer, answer)
        assert answer["id"] == "mine"
        if options.get("granularity") == "segment":
            return
        batch = await client.recognize_batch([HAPPY, b"no audio"], **options)
        check(BatchAnswer, batch)
        assert batch["items"][0]["filename"] == "happy.wav"
        assert batch["items"][1]["problem"]["code"] == "audio_not_decodable"


@pytest.mark.parametrize("channels", ["mix", "split"])
async def test_events_match_their_types(channels: Any) -> None:
    async with client_of(app_of(RecognizerDouble())) as client:
        events = [event async for event in client.segments(HAPPY, channels=channels)]
        assert [event["type"] for event in events] == ["start", "segment", "result"]
        for event_type, event in zip((StartEvent, SegmentEvent, ResultEvent), events, strict=True):
            check(event_type, event)
        with pytest.raises(Problem, match="415 audio_not_decodable"):
            await anext(client.segments(b"no audio"))


async def test_models_and_readiness() -> None:
    recognizer = RecognizerDouble()
    async with client_of(app_of(recognizer)) as client:
        models = await client.models()
        check(list[ModelDetails], models)
        assert await client.ready()
        await client.wait_ready()
        recognizer.state = "loading"
        assert not await client.ready()


async def test_a_refusal_is_retried_and_an_error_is_raised() -> None:
    recognizer = RecognizerDouble(refusals=[QueueFull("Full.", retry_after=0.1)])
    async with client_of(app_of(recognizer)) as client:
        assert (await client.recognize(HAPPY))["audio"]["channels"] == 1
        assert recognizer.refusals == []
        with pytest.raises(Problem) as caught:
            await client.recognize(HAPPY, trim="perhaps")  # type: ignore[arg-type]
        assert [error["field"] for error in caught.value.errors] == ["trim"]
        with pytest.raises(Problem) as caught:
            await client.recognize(HAPPY, granularty="frame")  # type: ignore[call-arg]
        assert "did you mean granularity" in caught.value.detail


async def test_the_api_key_is_required_and_accepted() -> None:
    app = app_of(RecognizerDouble(), api_keys=KEY)
    async with (
        client_of(app) as client_without_key,
        AsyncClient("http://localhost", api_key=KEY, transport=httpx.ASGITransport(app)) as client,
    ):
        with pytest.raises(Problem, match="401 key_missing"):
            await client_without_key.recognize(HAPPY)
        assert await client.recognize(HAPPY)


async def test_the_blocking_client_over_sockets() -> None:
    def use_client(port: int) -> None:
        with Client(f"http://127.0.0.1:{port}", retries=Retries(attempts=2)) as client:
            client.wait_ready(10)
            check(Answer, client.recognize(HAPPY))
            check(BatchAnswer, client.recognize_batch([HAPPY, HAPPY.read_bytes()]))
            with HAPPY.open("rb") as file, pytest.raises(Problem, match="413 body_too_large"):
                client.recognize(file.read() * 30)
            check(list[ModelDetails], client.models())

    async with listening(app_of(RecognizerDouble(), max_body_bytes=1024 * 1024)) as port:
        await asyncio.to_thread(use_client, port)
