"""WebSocket frames that are too many, too large or invalid."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from time import thread_time

import pytest
from fastapi import FastAPI
from websockets.frames import Frame, Opcode

from tests.api.double import RecognizerDouble
from tests.api.sockets import Connection, connected, http_client, listening
from tests.api.sounds import wav
from tests.api.stream.talking import RATE, noise, talking
from tests.inference.running import until

NewApp = Callable[..., FastAPI]

MEGABYTE = 1 << 20
OPENING = (
    b"GET /stream HTTP/1.1\r\nHost: localhost\r\n"
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
START = Frame(Opcode.TEXT, b'{"type":"start","sampling_rate":8000,"encoding":"s16le","window":1}').serialize(mask=True)


@asynccontextmanager
async def opened(port: int, start: bytes = START) -> AsyncIterator[Connection]:
    """A raw connection whose stream is ready."""
    async with connected(port) as connection:
        await connection.send(OPENING)
        head = await connection.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        await connection.send(start)
        if start:
            assert (await message(connection))["type"] == "ready"
        yield connection


async def frame(connection: Connection) -> tuple[int, bytes]:
    """Opcode and payload of the next frame, which must be final, short and unmasked."""
    async with asyncio.timeout(10):
        first, size = await connection.reader.readexactly(2)
        if size == 126:
            size = int.from_bytes(await connection.reader.readexactly(2), "big")
        return first & 0x0F, await connection.reader.readexactly(size)


async def message(connection: Connection) -> dict[str, object]:
    opcode, payload = await frame(connection)
    assert opcode == Opcode.TEXT, payload
    document: dict[str, object] = json.loads(payload)
    return document


async def close_code(connection: Connection) -> int:
    opcode, payload = await frame(connection)
    assert opcode == Opcode.CLOSE, payload
    return int.from_bytes(payload[:2], "big")


def fragments(count: int, payload: bytes) -> bytes:
    pieces = [Frame(Opcode.BINARY, payload, fin=False), *[Frame(Opcode.CONT, payload, fin=False)] * (count - 1)]
    return b"".join(each.serialize(mask=True) for each in pieces)


@pytest.fixture(autouse=True)
def _short_close(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.api.server.websocket_protocol._CLOSE_SECONDS", 0.2)


@pytest.mark.parametrize(
    ("sent", "problem_code", "code"),
    [
        (Frame(Opcode.BINARY, bytes(MEGABYTE + 2)).serialize(mask=True), "message_too_large", 1009),
        (b"\x82\xff" + (1 << 62).to_bytes(8, "big") + b"mask", "message_too_large", 1009),
        (fragments(3, bytes(400_000)), "message_too_large", 1009),
        (fragments(1000, b""), "message_too_large", 1009),
        (Frame(Opcode.TEXT, b"\xff\xfe").serialize(mask=True), None, 1007),
        (Frame(Opcode.TEXT, b"{}").serialize(mask=False), None, 1002),
        (b"\xf2\x80mask", None, 1002),
        (b"\x83\x80mask", None, 1002),
        (Frame(Opcode.CONT, b"x").serialize(mask=True), None, 1002),
        (b"\x89\xfe\x01\x00mask" + bytes(256), None, 1002),
        (b"GET /stream HTTP/1.1\r\n\r\n", None, 1002),
    ],
    ids=range(11),
)
async def test_invalid_frames_close_the_connection(
    new_app: NewApp,
    recognizer: RecognizerDouble,
    caplog: pytest.LogCaptureFixture,
    sent: bytes,
    problem_code: str | None,
    code: int,
) -> None:
    async with listening(new_app()) as port, opened(port) as connection:
        sending = asyncio.create_task(connection.send(sent))
        if problem_code:
            problem = await message(connection)
            assert (problem["type"], problem["code"]) == ("problem", problem_code)
        assert await close_code(connection) == code
        assert await connection.closed() == b""
        await asyncio.wait((sending,))
        await until(lambda: recognizer.streams == 0)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_a_message_of_a_megabyte_whole_or_in_fragments(new_app: NewApp, recognizer: RecognizerDouble) -> None:
    samples = noise(MEGABYTE / 2 / RATE).tobytes()
    whole = Frame(Opcode.BINARY, samples).serialize(mask=True)
    parts = [
        Frame(Opcode.BINARY if not at else Opcode.CONT, samples[at : at + 8192], fin=at == MEGABYTE - 8192)
        for at in range(0, MEGABYTE, 8192)
    ]
    async with listening(new_app()) as port, opened(port) as connection:
        for sent in (whole, b"".join(part.serialize(mask=True) for part in parts)):
            await connection.send(sent)
            event = await message(connection)
            assert event["type"] == "window"
        assert event["end"] == 131.0
        assert len(recognizer.clips) == 2


@pytest.fixture
def _no_garbage_collection() -> Iterator[None]:
    """No garbage collection during the test: with the objects of other tests it takes longer than what is measured."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("_no_garbage_collection")
@pytest.mark.parametrize("of", ["pings", "messages", "empty messages", "text"])
async def test_many_small_frames_do_not_block_the_event_loop(new_app: NewApp, of: str) -> None:
    """Thirty thousand frames arrive at once and never block the event loop for long."""
    small = {
        "pings": Frame(Opcode.PING, b""),
        "messages": Frame(Opcode.BINARY, b"\0\0"),
        "empty messages": Frame(Opcode.BINARY, b""),
        "text": Frame(Opcode.TEXT, b'{"type":"end"}'),
    }[of].serialize(mask=True)
    async with listening(new_app()) as port, http_client(port) as client, opened(port) as connection:
        flood = asyncio.create_task(connection.send(small * 30_000))
        reading = asyncio.create_task(connection.reader.read(-1))
        asking = asyncio.create_task(client.post("/recognize", files={"file": ("a.wav", wav())}))
        longest = 0.0
        async with asyncio.timeout(20):
            while not (flood.done() and asking.done()):
                before = thread_time()  # counts only the time in which the event loop runs
                await asyncio.sleep(0)
                longest = max(longest, thread_time() - before)
        assert longest < 0.05, "it takes some 4 ms; all at once, 80 and more"
        assert (await asking).status_code == 200
        reading.cancel()
        await asyncio.wait((reading, flood))


async def test_pings_are_not_answered_while_the_client_does_not_read(new_app: NewApp) -> None:
    """Otherwise the pongs would fill the memory."""
    ping = Frame(Opcode.PING, bytes(125)).serialize(mask=True)
    app = new_app(stream_idle_timeout=0.6)
    async with listening(app, send_buffer=4096) as port, opened(port) as connection:
        connection.reader._transport.pause_reading()  # type: ignore[attr-defined]
        flood = asyncio.create_task(connection.send(ping * 200_000))
        await asyncio.sleep(0.4)
        assert not flood.done(), "the buffers of the sockets are full"
        flood.cancel()
        await asyncio.wait((flood,))


async def test_http_timers_do_not_apply_to_streams(new_app: NewApp) -> None:
    """A stream on a keep-alive connection lasts longer than the header timeout."""
    async with listening(new_app(), header_timeout=1.0) as port, connected(port) as connection:
        await connection.send(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await connection.response())[0] == 200
        await connection.send(OPENING)
        assert (await connection.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        await asyncio.sleep(1.2)
        await connection.send(START)
        assert (await message(connection))["type"] == "ready"
        await asyncio.sleep(1.2)
        await connection.send(Frame(Opcode.BINARY, noise(1.0).tobytes()).serialize(mask=True))
        assert (await message(connection))["type"] == "window"


async def test_a_stream_sent_byte_by_byte(new_app: NewApp) -> None:
    async with listening(new_app()) as port, connected(port) as connection:
        for byte in OPENING + START:
            await connection.send(bytes([byte]))
        assert (await connection.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")


OPENINGS = {
    "no key": OPENING.replace(b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", b""),
    "no version": OPENING.replace(b"Sec-WebSocket-Version: 13\r\n", b""),
    "an old version": OPENING.replace(b"Version: 13", b"Version: 8"),
    "a short key": OPENING.replace(b"dGhlIHNhbXBsZSBub25jZQ==", b"abc="),
    "another method": OPENING.replace(b"GET", b"POST"),
    "a long header": OPENING.replace(b"\r\n\r\n", b"\r\nX: " + b"x" * 9000 + b"\r\n\r\n"),
    "a long path": OPENING.replace(b"/stream", b"/stream?" + b"x" * 9000),
    "a body": OPENING.replace(b"\r\n\r\n", b"\r\nContent-Length: 3\r\n\r\nabc"),
}


@pytest.mark.parametrize("name", OPENINGS)
async def test_invalid_opening_requests(
    new_app: NewApp, recognizer: RecognizerDouble, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    async with listening(new_app()) as port, connected(port) as connection:
        await connection.send(OPENINGS[name])
        await connection.problem(400, "malformed_request")
        assert await connection.closed() == b""
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_no_stream_is_opened_while_a_request_is_answered(new_app: NewApp, recognizer: RecognizerDouble) -> None:
    recognizer.gate.clear()
    clip = wav()
    asking = (
        b"POST /recognize HTTP/1.1\r\nHost: localhost\r\nContent-Type: audio/wav\r\nContent-Length: %d\r\n\r\n"
        % len(clip)
    )
    async with listening(new_app()) as port, connected(port) as connection:
        await connection.send(asking + clip)
        await until(lambda: recognizer.waiting == 1)
        await connection.send(OPENING)
        await connection.problem(400, "malformed_request")
        assert await connection.closed() == b""
        await until(lambda: recognizer.waiting == 0)


async def test_compression_is_not_negotiated(new_app: NewApp) -> None:
    """A few bytes of a compressed message could expand to a megabyte."""
    asking = OPENING.replace(b"\r\n\r\n", b"\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n")
    async with listening(new_app()) as port, connected(port) as connection:
        await connection.send(asking)
        head = await connection.reader.readuntil(b"\r\n\r\n")
        assert b"extensions" not in head.lower()


async def test_opening_requests_are_not_logged(new_app: NewApp, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    secret = {"x-api-key": "secret-key", "authorization": "Bearer secret-key"}
    async with listening(new_app(access_log=False)) as port, talking(port, secret) as talk:
        await talk.start()
    ours = [record for record in caplog.records if not record.name.startswith("websockets.client")]
    assert not any("secret" in record.getMessage() or "/stream" in record.getMessage() for record in ours)
