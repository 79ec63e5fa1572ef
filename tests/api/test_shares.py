"""One caller takes permits and streams as fast as it can; another one loses no answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial

import httpx
import pytest
from prometheus_client import CollectorRegistry
from starlette.types import Message

from service.api.app import create_app
from service.commands.serve import engine_limits
from service.inference.engine import Engine
from service.observability.metrics import Metrics
from service.observability.telemetry import Telemetry
from service.settings.sources import load_settings
from tests.api.answers import problem
from tests.api.asgi import upload_scope
from tests.api.conftest import serving
from tests.api.double import RecognizerDouble
from tests.api.sockets import connected, head, http_client, listening
from tests.api.sounds import wav
from tests.api.stream.talking import SECOND, NewApp, refused, talking
from tests.inference.fake_backend import FakeControl
from tests.inference.running import until

GREEDY, POLITE = ({"x-api-key": f"0123456789abcdef-{name}"} for name in ("greedy", "polite"))
CLIP = wav()


@pytest.fixture
async def shared() -> AsyncIterator[tuple[Engine, int]]:
    """The engine and the port of a service with two keys, few permits of each kind, and the default share."""
    settings = load_settings(
        api_keys=f"{GREEDY['x-api-key']},{POLITE['x-api-key']}",
        answer_cache_bytes=0,
        max_in_flight=5,
        max_segment_requests=4,
        max_streams=4,
        body_idle_timeout=60,
    )
    control, metrics = FakeControl(), Metrics(CollectorRegistry())
    engine = Engine(control.load, engine_limits(settings), Telemetry(metrics))
    async with listening(create_app(engine, settings, metrics)) as port:
        await engine.wait_ready()
        yield engine, port
        control.release()


async def post(port: int, headers: dict[str, str], **params: str) -> httpx.Response:
    async with http_client(port) as client:
        return await client.post("/recognize", content=CLIP, params=params, headers=headers)


@pytest.mark.parametrize(("granularity", "taken"), [("utterance", 3), ("segment", 2)])
async def test_slow_uploads(shared: tuple[Engine, int], granularity: str, taken: int) -> None:
    engine, port = shared
    upload = head(len(CLIP), f"/recognize?granularity={granularity}").replace(
        b"\r\n\r\n", f"\r\nX-API-Key: {GREEDY['x-api-key']}\r\n\r\n".encode()
    )

    def held(number: int) -> bool:
        return engine.state().requests == number

    async with AsyncExitStack() as connections:
        for number in range(8):
            connection = await connections.enter_async_context(connected(port))
            await connection.send(upload + CLIP[:100])
            if number < taken:
                await until(partial(held, number + 1))
            else:
                assert int((await connection.problem(429, "caller_limit"))["retry-after"]) >= 1
        for _ in range(5):
            assert (await post(port, POLITE, granularity=granularity)).status_code == 200
        problem(await post(port, GREEDY, granularity=granularity), 429, "caller_limit")
    await until(lambda: engine.state().requests == 0)
    assert (await post(port, GREEDY, granularity=granularity)).status_code == 200


async def test_streams(shared: tuple[Engine, int]) -> None:
    engine, port = shared
    async with AsyncExitStack() as streams:
        for _ in range(2):
            talk = await streams.enter_async_context(talking(port, GREEDY))
            await talk.start()
        headers = await refused(port, 429, "caller_limit", GREEDY)
        assert int(headers["retry-after"]) >= 1
        async with talking(port, POLITE) as talk:
            await talk.start(window=1)
            await talk.send(SECOND)
            await talk.event("window")
            await talk.end()
            assert (await talk.rest())[-1]["type"] == "result"
    await until(lambda: engine.state().streams == 0)


@pytest.mark.parametrize("path", ["/recognize", "/recognize/batch"])
async def test_a_permit_is_kept_until_the_answer_was_sent(
    new_app: NewApp, recognizer: RecognizerDouble, path: str
) -> None:
    form = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n' + CLIP + b"\r\n--x--\r\n"
    body, media = (form, b"multipart/form-data; boundary=x") if "batch" in path else (CLIP, b"audio/wav")
    scope = {**upload_scope(body), "path": path, "query_string": b"granularity=frame"}
    scope["headers"] = [(b"content-type", media), (b"host", b"localhost")]
    sending, read = asyncio.Event(), asyncio.Event()
    received = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive() -> Message:
        for message in received:
            return message
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            sending.set()
            await read.wait()

    app = new_app()
    async with serving(app):
        request = asyncio.create_task(app(scope, receive, send))
        await sending.wait()
        assert recognizer.permits == 1
        read.set()
        await request
        assert recognizer.permits == 0
