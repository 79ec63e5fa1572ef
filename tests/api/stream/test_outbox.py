"""The queue of messages to a client: its order and its bound."""

from __future__ import annotations

import asyncio

import pytest
from starlette.types import Message
from starlette.websockets import WebSocket, WebSocketDisconnect

from service.api.stream import outbox as outbox_module
from service.api.stream.outbox import Outbox
from service.errors import SlowConsumer
from tests.inference.running import until


class Client:
    """A client that accepts messages, or blocks."""

    def __init__(self) -> None:
        self.taken: list[str] = []
        self.reading = asyncio.Event()
        self.reading.set()
        self.gone = False

    async def send(self, message: Message) -> None:
        await self.reading.wait()
        if self.gone:
            raise OSError
        if message["type"] == "websocket.send":
            self.taken.append(message["text"])

    async def receive(self) -> Message:
        return {"type": "websocket.connect"}

    async def socket(self) -> WebSocket:
        socket = WebSocket({"type": "websocket"}, self.receive, self.send)
        await socket.accept()
        return socket


async def test_messages_are_sent_in_order_until_closed() -> None:
    client = Client()
    outbox = Outbox(1.0)
    sending = asyncio.create_task(outbox.send(await client.socket()))
    for number in range(5):
        await outbox.put(f"{number} ü".encode(), wait=False)
        await asyncio.sleep(0)
    outbox.close()
    await sending
    assert client.taken == [f"{number} ü" for number in range(5)]


async def test_a_full_queue_waits_or_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_module, "MAX_BYTES", 100)
    client = Client()
    outbox = Outbox(5.0)
    client.reading.clear()
    sending = asyncio.create_task(outbox.send(await _ready(client)))
    for _ in range(2):
        await outbox.put(bytes(50), wait=False)
    with pytest.raises(SlowConsumer):
        await outbox.put(b"x", wait=False)
    waiting = asyncio.create_task(outbox.put(b"x", wait=True))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    client.reading.set()
    await waiting
    outbox.close()
    await sending
    assert len(client.taken) == 3


async def _ready(client: Client) -> WebSocket:
    client.reading.set()
    socket = await client.socket()
    client.reading.clear()
    return socket


async def test_a_message_that_is_not_accepted_in_time() -> None:
    client = Client()
    outbox = Outbox(0.05)
    socket = await _ready(client)
    await outbox.put(b"x", wait=False)
    with pytest.raises(SlowConsumer, match=r"0\.05 seconds"):
        await outbox.send(socket)
    client.reading.set()
    outbox.close()
    await outbox.send(socket)
    assert client.taken == ["x"], "it was given up, and not lost"


async def test_forced_and_oversized_messages_are_queued(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_module, "MAX_BYTES", 10)
    client = Client()
    outbox = Outbox(1.0)
    await outbox.put(bytes(50), wait=False)
    outbox.force(b"last")
    outbox.close()
    await outbox.send(await client.socket())
    assert client.taken[1] == "last"


async def test_a_disconnected_client() -> None:
    client = Client()
    outbox = Outbox(1.0)
    sending = asyncio.create_task(outbox.send(await client.socket()))
    client.gone = True
    await outbox.put(b"x", wait=False)
    await until(sending.done)
    with pytest.raises(WebSocketDisconnect):
        sending.result()
