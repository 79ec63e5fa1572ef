"""A bounded queue of messages to send on a stream; a client that does not read them is disconnected."""

from __future__ import annotations

import asyncio
from collections import deque

from starlette.websockets import WebSocket

from service.errors import SlowConsumer

MAX_BYTES = 256 * 1024
"""Bytes queued for one client, besides the buffers of its connection. A message without an embedding has about 500
bytes, so a client that reads nothing is disconnected after minutes, and a slow one much later."""


class Outbox:
    """A first-in, first-out queue from the task that recognises to the task that sends.

    Args:
        send_timeout: seconds that the connection may take to accept one message.
    """

    def __init__(self, send_timeout: float) -> None:
        self._send_timeout = send_timeout
        self._messages: deque[tuple[str, int]] = deque()
        self._bytes = 0
        self._closed = False
        self._changed = asyncio.Event()

    async def put(self, message: bytes, *, wait: bool) -> None:
        """Queue a message.

        Args:
            message: the text, as UTF-8.
            wait: whether to wait while the queue is full; `send` raises `SlowConsumer` if that takes too long.

        Raises:
            SlowConsumer: if the queue is full and `wait` is false.
        """
        while self._messages and self._bytes + len(message) > MAX_BYTES:
            if not wait:
                raise SlowConsumer("The client does not read what it is sent, and too much of it waits.")
            self._changed.clear()
            await self._changed.wait()
        self.force(message)

    def force(self, message: bytes) -> None:
        """Queue a message even if the queue is full, as the last one before the stream is closed."""
        self._messages.append((message.decode(), len(message)))
        self._bytes += len(message)
        self._changed.set()

    def close(self) -> None:
        """Let `send` return once all messages are sent."""
        self._closed = True
        self._changed.set()

    async def send(self, socket: WebSocket) -> None:
        """Send messages until `close`.

        Raises:
            SlowConsumer: if the connection does not accept a message in time.
            WebSocketDisconnect: if the client has disconnected.
        """
        while self._messages or not self._closed:
            if not self._messages:
                self._changed.clear()
                await self._changed.wait()
                continue
            text, size = self._messages[0]
            try:
                async with asyncio.timeout(self._send_timeout):
                    await socket.send_text(text)
            except TimeoutError:
                raise SlowConsumer(f"The client has read nothing for {self._send_timeout:g} seconds.") from None
            self._messages.popleft()
            self._bytes -= size
            self._changed.set()
