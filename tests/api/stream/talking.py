"""A client of `/stream` for tests, message by message."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from fastapi import FastAPI
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from service.api.problems import PROBLEM_MEDIA_TYPE
from tests.api.sockets import PATIENCE

RATE = 8000


@dataclass
class Talk:
    """One connection to `/stream`."""

    connection: ClientConnection

    async def start(self, **members: Any) -> dict[str, Any]:
        """Send a start message with defaults and `members`, and return the `ready` event."""
        message = {"type": "start", "sampling_rate": RATE, "encoding": "s16le", **members}
        await self.connection.send(json.dumps(message))
        return await self.event("ready")

    async def send(self, message: bytes | str) -> None:
        await self.connection.send(message)

    async def end(self) -> None:
        await self.connection.send('{"type":"end"}')

    async def event(self, kind: str | None = None) -> dict[str, Any]:
        """The next event, which must be of this kind."""
        async with asyncio.timeout(PATIENCE):
            event: dict[str, Any] = json.loads(await self.connection.recv())
        assert kind is None or event["type"] == kind, event
        return event

    async def rest(self, seconds: float = PATIENCE) -> list[dict[str, Any]]:
        """All events until the service closes the stream, which must happen within `seconds`."""
        events = []
        async with asyncio.timeout(seconds):
            try:
                while True:
                    events.append(json.loads(await self.connection.recv()))
            except ConnectionClosed:
                return events

    async def closed(self) -> int | None:
        """The close code of the service; no event may precede it."""
        assert await self.rest() == []
        return self.connection.close_code

    async def problem(self, code: str, close: int) -> dict[str, Any]:
        """The next event, which must be this problem, followed by the close code."""
        event = await self.event("problem")
        assert event["code"] == code, event
        assert {"title", "status", "detail", "request_id", "errors"} <= event.keys()
        assert await self.closed() == close
        return event


@asynccontextmanager
async def talking(
    port: int, headers: Mapping[str, str] | None = None, *, receive_buffer: int | None = None, **options: Any
) -> AsyncIterator[Talk]:
    """A connection, aborted at the end if it is still open."""
    if receive_buffer is not None:
        options["sock"] = own = socket.socket()
        own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        own.setblocking(False)
        await asyncio.get_running_loop().sock_connect(own, ("127.0.0.1", port))
    connection = await connect(
        f"ws://127.0.0.1:{port}/stream",
        additional_headers=headers,
        compression=None,
        proxy=None,
        ping_interval=None,
        close_timeout=5,
        **options,
    )
    try:
        yield Talk(connection)
    finally:
        connection.transport.abort()
        await connection.wait_closed()


async def refused(
    port: int, status: int, code: str, headers: Mapping[str, str] | None = None, **options: Any
) -> Mapping[str, str]:
    """The headers of the problem document with which the service refuses a stream."""
    try:
        async with talking(port, headers, **options):
            raise AssertionError("the stream was not refused")
    except InvalidStatus as error:
        response = error.response
    document = json.loads(response.body)
    assert (response.status_code, document["code"]) == (status, code)
    assert response.headers["content-type"] == PROBLEM_MEDIA_TYPE
    assert response.headers["x-request-id"] == document["request_id"]
    return response.headers


def noise(seconds: float, *, rate: int = RATE, channels: int = 1, seed: int = 0) -> NDArray[np.int16]:
    """Noise as 16-bit samples of shape (time, channel); steady, so not taken for speech."""
    rng = np.random.default_rng(seed)
    return rng.integers(-3000, 3000, (round(seconds * rate), channels)).astype("<i2")


def words(*lengths: float, pause: float = 1.0, rate: int = RATE) -> NDArray[np.int16]:
    """Utterances of these lengths in seconds, (time,): noise that is modulated four times a second, like speech."""
    rng = np.random.default_rng(1)
    silence = rng.normal(0, 10, round(pause * rate))
    pieces = [silence]
    for length in lengths:
        time = np.arange(round(length * rate)) / rate
        pieces += [rng.normal(0, 5000, time.size) * (0.1 + np.sin(4 * np.pi * time) ** 2), silence]
    return np.concatenate(pieces).clip(-32768, 32767).astype("<i2")


SECOND = noise(1.0).tobytes()
START = '{"type":"start","sampling_rate":8000,"encoding":"s16le"}'

NewApp = Callable[..., FastAPI]


def check_counts(registry: CollectorRegistry, close: str, **events: int) -> None:
    assert registry.get_sample_value("ser_streams_closed_total", {"code": close}) == 1
    for kind, count in events.items():
        assert registry.get_sample_value("ser_stream_events_total", {"type": kind}) == count, kind


async def send_slowly(send: Callable[[str | bytes], Any], messages: list[str | bytes]) -> None:
    for message in messages:
        await send(message)
        await asyncio.sleep(0.02)
