"""uvicorn's WebSocket protocol with bounds on how much of one connection is parsed and buffered at once.

uvicorn stops reading once a message waits for the application, but only after it has parsed everything received so far:
a quarter of a megabyte may hold 40,000 messages, or as many pings, each answered at once even if the client does not
read. Here the data is parsed in small pieces, each in its own iteration of the event loop, and only after the
application has taken the messages of the previous piece and the client has read what it was sent.
"""

from __future__ import annotations

import asyncio
import logging
from http import HTTPStatus
from typing import Any, cast

import orjson
from starlette.types import Scope
from uvicorn._types import ASGIReceiveEvent, ASGISendEvent
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.server import ServerProtocol

from service.api.problems import problem_of
from service.api.request_context import request_context
from service.api.server.http_protocol import LOCAL_CLIENT
from service.api.server.refusal import refusal
from service.errors import MalformedRequest, MessageTooLarge, ServiceError

MAX_MESSAGE = 1 << 20
"""Maximal bytes of a message."""

_PIECE_BYTES = 2048
"""Bytes parsed at a time: about 300 messages at most, which takes about two milliseconds."""

_MAX_FRAGMENTS = 256
_CLOSE_SECONDS = 3.0
"""Seconds for a client to read the close frame and confirm it."""
_TOO_BIG = 1009  # close codes of RFC 6455
_BAD_TEXT = 1007

# Both libraries log addresses, paths and headers, including API keys, so their lines are suppressed.
_logger = logging.getLogger("service.websockets")
_logger.setLevel(logging.WARNING)


class StreamProtocol(WebSocketsSansIOProtocol):
    """One WebSocket connection. Use `WEBSOCKETS`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.logger = _logger
        self.conn = _Handshake(max_size=self.config.ws_max_size, logger=_logger)
        self.close_timeout = _CLOSE_SECONDS
        self._unparsed = bytearray()
        self._next_piece: asyncio.Handle | None = None
        self._abort_timer: asyncio.TimerHandle | None = None
        self._ignoring_input = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection was that of an HTTP request until now."""
        super().connection_made(transport)
        if self.config.uds is not None:
            self.client = LOCAL_CLIENT

    def data_received(self, data: bytes) -> None:
        """Queue `data` for parsing; the first bytes are those of the opening request."""
        if not self._ignoring_input:
            self._unparsed += data
            self._continue()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed: cancel everything scheduled."""
        super().connection_lost(exc)
        self._unparsed.clear()
        for handle in (self._next_piece, self._abort_timer):
            if handle is not None:
                handle.cancel()

    def resume_writing(self) -> None:
        """Most of the transport's write buffer has been sent."""
        super().resume_writing()
        self._continue()

    async def receive(self) -> ASGIReceiveEvent:
        """Give the application the next message."""
        message = await self.queue.get()
        self._continue()
        return message

    async def send(self, message: ASGISendEvent) -> None:
        """Send a message from the application."""
        await super().send(message)
        self._continue()

    def send_receive_event_to_app(self) -> None:
        """Queue a complete message. Text that is not UTF-8 closes the connection; uvicorn would also log it."""
        if self.curr_msg_data_type == "text":
            data = b"".join(self.frames)
            try:
                data.decode()
            except UnicodeDecodeError:
                self._fail(_BAD_TEXT)
                return
            self.frames = [data]
        super().send_receive_event_to_app()

    def handle_cont(self, event: Frame) -> None:
        """Handle a fragment of a message. Their number is limited too, since empty fragments count no bytes."""
        if self._ignoring_input:
            return
        super().handle_cont(event)
        if len(self.frames) > _MAX_FRAGMENTS:
            self._fail(_TOO_BIG)

    def handle_parser_exception(self) -> None:
        """Close the connection of a client that violates the protocol, after it had time to read the reason."""
        close = self.conn.close_sent
        self._ignoring_input = True
        self._unparsed.clear()
        if close is None or self.close_sent:
            self.transport.close()
            return
        self.stop_keepalive()
        self.queue.put_nowait({"type": "websocket.disconnect", "code": close.code, "reason": close.reason})
        if close.code == _TOO_BIG:
            error = MessageTooLarge(f"A message may have {MAX_MESSAGE} bytes, in {_MAX_FRAGMENTS} fragments.")
            problem = problem_of(error, request_context(cast(Scope, self.scope)).id)
            text = orjson.dumps({**problem, "type": "problem"})
            self.transport.write(Frame(Opcode.TEXT, text).serialize(mask=False))
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.close_timer = self.loop.call_later(self.close_timeout, self.transport.close)
        self._continue()

    def on_task_complete(self, task: asyncio.Task[None]) -> None:
        """The application has ended: abort the connection if the client does not close it in time."""
        super().on_task_complete(task)
        if not self.disconnected:
            self._abort_timer = self.loop.call_later(self.close_timeout + 1, self.transport.abort)

    def shutdown(self) -> None:
        """The server is shutting down."""
        if not self.close_sent or self.close_timer is None:
            super().shutdown()

    def _fail(self, code: int) -> None:
        self.frames = []
        self.conn.fail(code)
        self.handle_parser_exception()

    def _continue(self) -> None:
        """Schedule the next piece, and pause reading while pieces, the application or the client are behind."""
        if self.transport.is_closing():
            return
        busy = not self.close_sent and (not self.queue.empty() or not self.writable.is_set())
        if self._unparsed and not busy and self._next_piece is None:
            self._next_piece = self.loop.call_soon(self._parse_piece)
        pause = busy or bool(self._unparsed)
        if pause and not self.read_paused:
            self.transport.pause_reading()
        elif not pause and self.read_paused:
            self.transport.resume_reading()
        self.read_paused = pause

    def _parse_piece(self) -> None:
        self._next_piece = None
        piece = bytes(self._unparsed[:_PIECE_BYTES])
        del self._unparsed[:_PIECE_BYTES]
        super().data_received(piece)
        if not self.handshake_initiated and self.conn.handshake_exc is not None:
            # The parser of websockets rejects some requests that uvicorn's accepts, without sending an answer.
            answer = b"".join(self.conn.data_to_send()) or self.conn.reject(HTTPStatus.BAD_REQUEST, "").serialize()
            self.transport.write(answer)
            self.transport.close()
        self._continue()


class _Handshake(ServerProtocol):
    """Refuses opening requests with problem documents."""

    def reject(self, status: HTTPStatus | int, text: str) -> Response:
        """The problem document, in place of the plain `text` of websockets."""
        if status == HTTPStatus.INTERNAL_SERVER_ERROR:
            return refusal(ServiceError("See the log."))
        return refusal(MalformedRequest("This is not a valid request to open a WebSocket."))


WEBSOCKETS: dict[str, Any] = {
    "ws": StreamProtocol,
    "ws_max_size": MAX_MESSAGE,
    "ws_per_message_deflate": False,  # a compressed message could expand without bound, and audio hardly compresses
    "ws_ping_interval": 20.0,  # for proxies that close idle connections
    "ws_ping_timeout": None,  # a pong may be queued behind unread audio; streams have their own time limits
}
"""Settings for `uvicorn.Config`."""
