"""The messages that wait to be sent on a stream, bounded; clients that do not read them are disconnected."""

from __future__ import annotations

import asyncio
from collections import deque

from starlette.websockets import WebSocket

from service.errors import SlowConsumer

MAX_BYTES = 256 * 1024
"""What may wait for one client, beside what the connection itself holds. A message without an embedding has some 500
bytes, so a client that reads nothing is told after minutes, and one with a slow line long after."""


class Outbox:
    """Messages in their order, from the task that answers to the task that sends.

    Args:
        patience: seconds that the connection may take to accept one message.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._messages: deque[tuple[str, int]] = deque()
        self._bytes = 0
        self._closed = False
        self._changed = asyncio.Event()

    async def put(self, message: bytes, *, wait: bool) -> None:
        """Let `message`, UTF-8, be sent after those before it.

        Args:
            message: the text.
            wait: whether to wait for room; the sender will say so if that takes too long.

        Raises:
            SlowConsumer: if there is no room and `wait` is false.
        """
        while self._messages and self._bytes + len(message) > MAX_BYTES:
            if not wait:
                raise SlowConsumer("The client does not read what it is sent, and too much of it waits.")
            self._changed.clear()
            await self._changed.wait()
        self.force(message)

    def force(self, message: bytes) -> None:
        """Let `message` be sent even where there is no room, as the last one before a stream is closed."""
        self._messages.append((message.decode(), len(message)))
        self._bytes += len(message)
        self._changed.set()

    def close(self) -> None:
        """Let `send` come to its end when all is sent."""
        self._closed = True
        self._changed.set()

    async def send(self, socket: WebSocket) -> None:
        """Send all that comes until `close`.

        Raises:
            SlowConsumer: if the client does not take a message in time.
            WebSocketDisconnect: if it is gone.
        """
        while self._messages or not self._closed:
            if not self._messages:
                self._changed.clear()
                await self._changed.wait()
                continue
            text, size = self._messages[0]
            try:
                async with asyncio.timeout(self._patience):
                    await socket.send_text(text)
            except TimeoutError:
                raise SlowConsumer(f"The client has read nothing for {self._patience:g} seconds.") from None
            self._messages.popleft()
            self._bytes -= size
            self._changed.set()
