"""uvicorn's WebSocket protocol with the bounds that it leaves to chance.

uvicorn stops reading once the application has a message to take, but only after all that has come in one go: a quarter
of a megabyte may hold 40,000 messages, or as many pings, each of which is answered at once whether the client reads or
not. Here what has come is taken apart in small pieces, each in a turn of its own of the event loop, and not before the
application has taken what was found in the one before, and the client what it was sent.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from http import HTTPStatus
from typing import Any, cast

import orjson
from starlette.types import Scope
from uvicorn._types import ASGIReceiveEvent, ASGISendEvent
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.datastructures import Headers
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.server import ServerProtocol

from service.api.problems import PROBLEM_MEDIA_TYPE, problem_of
from service.api.request_context import request_context
from service.errors import MalformedRequest, MessageTooLarge, ServiceError

MAX_MESSAGE = 1 << 20
"""Bytes that a message may have."""

_PIECE = 2048
"""Bytes that are taken apart in one go: some 300 messages at most, which takes about two milliseconds."""

_MAX_FRAGMENTS = 256
_CLOSE_SECONDS = 3.0
"""Seconds in which a client may answer that the stream is closed, and read why."""
_TOO_BIG = 1009
_BAD_TEXT = 1007

# Neither library may say what it has to say: their lines hold addresses, paths and headers, keys among them.
_logger = logging.getLogger("service.websockets")
_logger.setLevel(logging.WARNING)


class StreamProtocol(WebSocketsSansIOProtocol):
    """One WebSocket connection. Use `WEBSOCKETS`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.logger = _logger
        self.conn = _Handshake(max_size=self.config.ws_max_size, logger=_logger)
        self.close_timeout = _CLOSE_SECONDS
        self._rest = bytearray()
        self._turn: asyncio.Handle | None = None
        self._abort: asyncio.TimerHandle | None = None
        self._deaf = False

    def data_received(self, data: bytes) -> None:
        """Something has come; the request itself is the first."""
        if not self._deaf:
            self._rest += data
            self._go_on()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody is there any more."""
        super().connection_lost(exc)
        self._rest.clear()
        for handle in (self._turn, self._abort):
            if handle is not None:
                handle.cancel()

    def resume_writing(self) -> None:
        """The client has taken most of what it was sent."""
        super().resume_writing()
        self._go_on()

    async def receive(self) -> ASGIReceiveEvent:
        """The next message, for the application."""
        message = await self.queue.get()
        self._go_on()
        return message

    async def send(self, message: ASGISendEvent) -> None:
        """Send a message of the application."""
        await super().send(message)
        self._go_on()

    def send_receive_event_to_app(self) -> None:
        """A message has come whole; text that is no UTF-8 is the client's fault, and nothing for the log."""
        if self.curr_msg_data_type == "text":
            data = b"".join(self.frames)
            try:
                data.decode()
            except UnicodeDecodeError:
                self.frames = []
                self.conn.fail(_BAD_TEXT)
                self.handle_parser_exception()
                return
            self.frames = [data]
        super().send_receive_event_to_app()

    def handle_cont(self, event: Frame) -> None:
        """A fragment of a message; empty ones have no bytes that could be too many."""
        if self._deaf:
            return
        super().handle_cont(event)
        if len(self.frames) > _MAX_FRAGMENTS:
            self.frames = []
            self.conn.fail(_TOO_BIG)
            self.handle_parser_exception()

    def handle_parser_exception(self) -> None:
        """Close, where the client breaks the rules; not at once, since what is said then could get lost on its way."""
        close = self.conn.close_sent
        self._deaf = True
        self._rest.clear()
        if close is None or self.close_sent:
            self.transport.close()
            return
        self.stop_keepalive()
        self.queue.put_nowait({"type": "websocket.disconnect", "code": close.code, "reason": close.reason})
        if close.code == _TOO_BIG:
            self.transport.write(_problem_message(request_context(cast(Scope, self.scope)).id))
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.close_timer = self.loop.call_later(self.close_timeout, self.transport.close)
        self._go_on()

    def on_task_complete(self, task: asyncio.Task[None]) -> None:
        """The application is done; a client that reads nothing must not keep the connection."""
        super().on_task_complete(task)
        if not self.disconnected:
            self._abort = self.loop.call_later(self.close_timeout + 1, self.transport.abort)

    def shutdown(self) -> None:
        """The server ends: the application has said all, or has not come to it."""
        if not self.close_sent or self.close_timer is None:
            super().shutdown()

    def _go_on(self) -> None:
        """Take apart the next piece, or read, or wait for application and client."""
        if self.transport.is_closing():
            return
        busy = not self.close_sent and (not self.queue.empty() or not self.writable.is_set())
        if self._rest and not busy and self._turn is None:
            self._turn = self.loop.call_soon(self._take_apart)
        pause = busy or bool(self._rest)
        if pause and not self.read_paused:
            self.transport.pause_reading()
        elif not pause and self.read_paused:
            self.transport.resume_reading()
        self.read_paused = pause

    def _take_apart(self) -> None:
        self._turn = None
        piece = bytes(self._rest[:_PIECE])
        del self._rest[:_PIECE]
        super().data_received(piece)
        if not self.handshake_initiated and self.conn.handshake_exc is not None:
            # What passes for HTTP with one parser need not with the other, which then says nothing.
            refusal = b"".join(self.conn.data_to_send()) or self.conn.reject(HTTPStatus.BAD_REQUEST, "").serialize()
            self.transport.write(refusal)
            self.transport.close()
        self._go_on()


class _Handshake(ServerProtocol):
    """Refuses as the rest of the service does."""

    def reject(self, status: HTTPStatus | int, text: str) -> Response:
        """A problem document, instead of a line of text."""
        error: ServiceError = MalformedRequest("This is not a valid request to open a WebSocket.")
        if status == HTTPStatus.INTERNAL_SERVER_ERROR:
            error = ServiceError("See the log.")
        problem = problem_of(error, uuid.uuid4().hex)
        body = orjson.dumps(problem)
        headers = Headers(
            {
                "Connection": "close",
                "Content-Length": str(len(body)),
                "Content-Type": PROBLEM_MEDIA_TYPE,
                "X-Request-ID": problem["request_id"],
            }
        )
        known = HTTPStatus(problem["status"])
        return Response(known.value, known.phrase, headers, body)


def _problem_message(request_id: str) -> bytes:
    """What streams say before they close, for a message that no stream gets to see."""
    error = MessageTooLarge(f"A message may have {MAX_MESSAGE} bytes, in {_MAX_FRAGMENTS} fragments.")
    event = {**problem_of(error, request_id), "type": "problem"}
    return Frame(Opcode.TEXT, orjson.dumps(event)).serialize(mask=False)


WEBSOCKETS: dict[str, Any] = {
    "ws": StreamProtocol,
    "ws_max_size": MAX_MESSAGE,
    "ws_per_message_deflate": False,  # speech does not shrink, and bombs do not grow
    "ws_ping_interval": 20.0,  # for proxies that close what is silent
    "ws_ping_timeout": None,  # the answer may wait behind audio that is not read yet; streams have limits of their own
}
"""What `uvicorn.Config` is told."""
