"""uvicorn's WebSocket protocol with bounds on what one connection may bring at once.

uvicorn stops reading once the application has a message to take, but only after it has parsed everything that came in
one
go: a quarter of a megabyte may hold 40,000 messages, or as many pings, each of which is answered at once whether the
client reads or not. Here the data is parsed in small pieces, each in its own turn of the event loop, and only after the
application has taken the messages of the piece before and the client has read what it was sent.
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
"""Bytes that are parsed in one go: some 300 messages at most, which takes about two milliseconds."""

_MAX_FRAGMENTS = 256
_CLOSE_SECONDS = 3.0
"""Seconds for a client to read why the stream is closed, and to confirm it."""
_TOO_BIG = 1009
_BAD_TEXT = 1007

# Both libraries log addresses, paths and headers, API keys among them, so their lines are suppressed.
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
        self._ignoring_input = False

    def data_received(self, data: bytes) -> None:
        """Data has come, beginning with the request itself."""
        if not self._ignoring_input:
            self._rest += data
            self._continue()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone."""
        super().connection_lost(exc)
        self._rest.clear()
        for handle in (self._turn, self._abort):
            if handle is not None:
                handle.cancel()

    def resume_writing(self) -> None:
        """The client has read most of what it was sent."""
        super().resume_writing()
        self._continue()

    async def receive(self) -> ASGIReceiveEvent:
        """The next message, for the application."""
        message = await self.queue.get()
        self._continue()
        return message

    async def send(self, message: ASGISendEvent) -> None:
        """Send a message of the application."""
        await super().send(message)
        self._continue()

    def send_receive_event_to_app(self) -> None:
        """A message is complete. Text that is not UTF-8 closes the connection, without a line in the log."""
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
        """A fragment of a message. Their number is limited as well, since empty ones have no bytes to count."""
        if self._ignoring_input:
            return
        super().handle_cont(event)
        if len(self.frames) > _MAX_FRAGMENTS:
            self.frames = []
            self.conn.fail(_TOO_BIG)
            self.handle_parser_exception()

    def handle_parser_exception(self) -> None:
        """Close the connection of a client that violates the protocol, with time for it to read the reason."""
        close = self.conn.close_sent
        self._ignoring_input = True
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
        self._continue()

    def on_task_complete(self, task: asyncio.Task[None]) -> None:
        """The application has ended; a client that reads nothing must not keep the connection."""
        super().on_task_complete(task)
        if not self.disconnected:
            self._abort = self.loop.call_later(self.close_timeout + 1, self.transport.abort)

    def shutdown(self) -> None:
        """The server ends."""
        if not self.close_sent or self.close_timer is None:
            super().shutdown()

    def _continue(self) -> None:
        """Parse the next piece, or read, or wait for application and client."""
        if self.transport.is_closing():
            return
        busy = not self.close_sent and (not self.queue.empty() or not self.writable.is_set())
        if self._rest and not busy and self._turn is None:
            self._turn = self.loop.call_soon(self._parse_piece)
        pause = busy or bool(self._rest)
        if pause and not self.read_paused:
            self.transport.pause_reading()
        elif not pause and self.read_paused:
            self.transport.resume_reading()
        self.read_paused = pause

    def _parse_piece(self) -> None:
        self._turn = None
        piece = bytes(self._rest[:_PIECE])
        del self._rest[:_PIECE]
        super().data_received(piece)
        if not self.handshake_initiated and self.conn.handshake_exc is not None:
            # uvicorn's parser took this for HTTP; that of websockets does not, and sends no answer by itself.
            refusal = b"".join(self.conn.data_to_send()) or self.conn.reject(HTTPStatus.BAD_REQUEST, "").serialize()
            self.transport.write(refusal)
            self.transport.close()
        self._continue()


class _Handshake(ServerProtocol):
    """Refuses with problem documents, as the rest of the service does."""

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
    """The problem that a stream sends before it closes, for a message that never reaches the stream."""
    error = MessageTooLarge(f"A message may have {MAX_MESSAGE} bytes, in {_MAX_FRAGMENTS} fragments.")
    event = {**problem_of(error, request_id), "type": "problem"}
    return Frame(Opcode.TEXT, orjson.dumps(event)).serialize(mask=False)


WEBSOCKETS: dict[str, Any] = {
    "ws": StreamProtocol,
    "ws_max_size": MAX_MESSAGE,
    "ws_per_message_deflate": False,  # speech hardly compresses, and compressed messages could expand without bound
    "ws_ping_interval": 20.0,  # for proxies that close idle connections
    "ws_ping_timeout": None,  # a pong may wait behind audio that is not read yet; streams have time limits of their own
}
"""Settings for `uvicorn.Config`."""
