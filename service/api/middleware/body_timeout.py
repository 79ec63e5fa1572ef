"""Time limits for uploads."""

from __future__ import annotations

import asyncio
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

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
        """Send a part of the response; its headers say if the connection will be closed."""
        if message["type"] == "http.response.start" and self._unread(message["status"]):
            message = {**message, "headers": [*message.get("headers", []), (b"connection", b"close")]}
        await self._send(message)

    def _unread(self, status: int) -> bool:
        """Whether a response with this status leaves so much of the body unread that the connection must end."""
        return not self._complete and (not self._small or status == HTTPStatus.REQUEST_TIMEOUT)
