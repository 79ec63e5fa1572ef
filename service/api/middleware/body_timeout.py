"""Limits on how slowly a body may come in, and how a connection ends whose body nobody wants."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import UploadTimeout

_LINGER = 2.0
_SMALL_BODY = 1024 * 1024


class BodyTimeoutMiddleware:
    """Ends uploads that stall or trickle; uvicorn itself would wait for ever.

    An answer that leaves before its request's body has arrived (a refusal, mostly) closes the connection, unless
    the body is small and does not stall. Closing at once would reset the connection and could destroy the answer
    on its way. So the answer goes out whole, then what still comes in is thrown away for a moment, then the
    connection is closed.

    Args:
        app: the application within.
        total: seconds in which the whole body must arrive.
        idle: seconds without any byte.
    """

    def __init__(self, app: ASGIApp, *, total: float, idle: float) -> None:
        self.app = app
        self._total = total
        self._idle = idle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        body = _Body(receive, send, Headers(scope=scope), self._total, self._idle)
        await self.app(scope, body.receive, body.send)
        await body.close()


class _Body:
    """The two channels of one request."""

    def __init__(self, receive: Receive, send: Send, headers: Headers, total: float, idle: float) -> None:
        self._receive = receive
        self._send = send
        self._total = total
        self._idle = idle
        self._until = asyncio.get_running_loop().time() + total
        length = headers.get("content-length", "")
        self._complete = length in ("", "0") and "transfer-encoding" not in headers
        self._small = length.isdecimal() and len(length) < 10 and int(length) <= _SMALL_BODY
        self._lingers = False

    async def receive(self) -> Message:
        """The next piece of the body, or the client's disconnect, for which a caller may wait without limit."""
        if self._complete:
            return await self._receive()
        until = min(self._until, asyncio.get_running_loop().time() + self._idle)
        try:
            async with asyncio.timeout_at(until):
                message = await self._receive()
        except TimeoutError:
            limit = (
                f"{self._total:g} seconds" if until == self._until else f"{self._idle:g} seconds since its last byte"
            )
            raise UploadTimeout(f"The body did not arrive within {limit}.") from None
        self._complete = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        """Pass an answer on; hold back its end where the body is not through yet."""
        if message["type"] == "http.response.start" and not self._complete:
            self._lingers = not self._small or message["status"] == HTTPStatus.REQUEST_TIMEOUT
        if message["type"] == "http.response.start" and self._lingers:
            message = {**message, "headers": [*message.get("headers", []), (b"connection", b"close")]}
        elif self._lingers and not message.get("more_body", False):
            message = {**message, "more_body": True}
        await self._send(message)

    async def close(self) -> None:
        """Throw away the rest of an unwanted body for a moment, then let the server close the connection."""
        if not self._lingers:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(_LINGER):
                while not self._complete:
                    message = await self._receive()
                    self._complete = not message.get("more_body", False)
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})
