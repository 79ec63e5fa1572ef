"""Time limits for uploads."""

from __future__ import annotations

import asyncio
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.pace import Pace
from service.errors import UploadTimeout

_SMALL_BODY = 1024 * 1024


class BodyTimeoutMiddleware:
    """Ends uploads that are too slow; uvicorn itself would wait for ever.

    A response that is sent before its request's body has arrived (mostly a refusal) closes the connection, unless the
    body is small and does not stall. `service.api.server.closing` closes it so that the response can be read.

    Args:
        app: the inner application.
        total: seconds in which the whole body must arrive.
        idle: maximal seconds without any byte.
        rate: bytes per second that must arrive on average, after `idle` seconds; 0 for no limit.
    """

    def __init__(self, app: ASGIApp, *, total: float, idle: float, rate: int) -> None:
        self.app = app
        self._total = total
        self._idle = idle
        self._rate = rate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        body = _Body(receive, send, Headers(scope=scope), self._total, Pace(self._rate, self._idle))
        await self.app(scope, body.receive, body.send)


class _Body:
    """The `receive` and `send` channels of one request."""

    def __init__(self, receive: Receive, send: Send, headers: Headers, total: float, pace: Pace) -> None:
        self._receive = receive
        self._send = send
        self._total = total
        self._pace = pace
        self._until = asyncio.get_running_loop().time() + total
        length = headers.get("content-length", "")
        self._complete = length in ("", "0") and "transfer-encoding" not in headers
        self._small = length.isdecimal() and len(length) < 10 and int(length) <= _SMALL_BODY

    async def receive(self) -> Message:
        """The next piece of the body; after its end, the client's disconnect, without a time limit.

        Raises:
            UploadTimeout: if the body does not arrive in time.
        """
        if self._complete:
            return await self._receive()
        loop, pace = asyncio.get_running_loop(), self._pace
        began = loop.time()
        patience = min(self._until - began, pace.grace, pace.left)
        try:
            async with asyncio.timeout(patience):
                message = await self._receive()
        except TimeoutError:
            raise UploadTimeout(self._reason(patience)) from None
        pace.waited += loop.time() - began
        pace.received += len(message.get("body", b""))
        self._complete = not message.get("more_body", False)
        return message

    def _reason(self, patience: float) -> str:
        """Why the body was not awaited for longer than `patience` seconds since its last byte."""
        if patience == self._pace.grace:
            return f"The body did not arrive within {patience:g} seconds since its last byte."
        if patience == self._pace.left:
            return f"The body arrived at fewer than {self._pace.rate:g} bytes per second."
        return f"The body did not arrive within {self._total:g} seconds."

    async def send(self, message: Message) -> None:
        """Send a part of the response; its headers say if the connection will be closed."""
        if message["type"] == "http.response.start" and self._unread(message["status"]):
            message = {**message, "headers": [*message.get("headers", []), (b"connection", b"close")]}
        await self._send(message)

    def _unread(self, status: int) -> bool:
        """Whether a response with this status leaves so much of the body unread that the connection must end."""
        return not self._complete and (not self._small or status == HTTPStatus.REQUEST_TIMEOUT)
