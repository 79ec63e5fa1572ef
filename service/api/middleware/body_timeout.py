"""Time limits for uploads, and the end of connections whose body is not read."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import UploadTimeout

_LINGER = 2.0
"""Seconds in which the rest of an unread body is discarded before its connection is closed."""

_SMALL_BODY = 1024 * 1024


class BodyTimeoutMiddleware:
    """Ends uploads that are too slow; uvicorn itself would wait for ever.

    A response that is sent before its request's body has arrived (mostly a refusal) closes the connection, unless the
    body is small and does not stall. Closing at once would reset the connection and could destroy the response before
    it is read. So the response is sent completely, then the rest of the body is discarded for up to `_LINGER` seconds,
    and then the connection is closed.

    Args:
        app: the inner application.
        total: seconds in which the whole body must arrive.
        idle: maximal seconds without any byte.
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
    """The `receive` and `send` channels of one request."""

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
        """The next piece of the body; after its end, the client's disconnect, without a time limit.

        Raises:
            UploadTimeout: if the body does not arrive in time.
        """
        if self._complete:
            return await self._receive()
        until = min(self._until, asyncio.get_running_loop().time() + self._idle)
        try:
            async with asyncio.timeout_at(until):
                message = await self._receive()
        except TimeoutError:
            idle = f"{self._idle:g} seconds since its last byte"
            limit = f"{self._total:g} seconds" if until == self._until else idle
            raise UploadTimeout(f"The body did not arrive within {limit}.") from None
        self._complete = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        """Send a part of the response; its end is held back for `close` if the connection must linger."""
        if message["type"] == "http.response.start" and not self._complete:
            self._lingers = not self._small or message["status"] == HTTPStatus.REQUEST_TIMEOUT
        if message["type"] == "http.response.start" and self._lingers:
            message = {**message, "headers": [*message.get("headers", []), (b"connection", b"close")]}
        elif self._lingers and not message.get("more_body", False):
            message = {**message, "more_body": True}
        await self._send(message)

    async def close(self) -> None:
        """If the connection must linger, discard the rest of the body, then end the response, which closes it."""
        if not self._lingers:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(_LINGER):
                while not self._complete:
                    message = await self._receive()
                    self._complete = not message.get("more_body", False)
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})
