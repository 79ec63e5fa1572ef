"""uvicorn's HTTP protocol with limits that an application cannot set: on headers and on unread answers."""

from __future__ import annotations

import asyncio
import uuid
from http import HTTPStatus

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.api.problems import PROBLEM_MEDIA_TYPE, problem_of
from service.errors import HeadersTooLarge, MalformedRequest, ServiceError

_MAX_PIPELINED = 16
"""Requests that may wait on one connection while another is answered; few clients send even one."""

_LINGER = 1.0
"""Seconds for a refused client to read the error; closing at once could destroy it on its way."""


class AnswerTimeoutProtocol(HttpToolsProtocol):
    """Aborts connections whose client reads no byte of an answer for `answer_timeout` seconds.

    uvicorn would keep the rest of the answer, megabytes where frames were asked for, as long as the client keeps the
    connection; also past its own keep-alive timeout, since closing waits for what is not sent yet. A client that reads
    slowly is not limited.
    """

    answer_timeout = 30.0

    _watching: asyncio.TimerHandle | None = None
    _unread = 0
    _resumed = False

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone."""
        self.stop_watching()
        super().connection_lost(exc)

    def stop_watching(self) -> None:
        """Stop the timer, when another protocol takes the connection over."""
        if self._watching is not None:
            self._watching.cancel()
            self._watching = None

    def pause_writing(self) -> None:
        """More of an answer waits than the transport wants to hold."""
        super().pause_writing()
        self._watch()

    def resume_writing(self) -> None:
        """Most of it has been sent."""
        super().resume_writing()
        self._resumed = True

    def on_response_complete(self) -> None:
        """The last of an answer was given to the transport, which may still hold it."""
        super().on_response_complete()
        self._watch()

    def _watch(self) -> None:
        if self._watching is None and (unread := self.transport.get_write_buffer_size()):
            self._unread, self._resumed = unread, False
            self._watching = self.loop.call_later(self.answer_timeout, self._look)

    def _look(self) -> None:
        self._watching = None
        if self._resumed or self.transport.get_write_buffer_size() < self._unread:
            self._watch()
        else:
            self.transport.abort()


class LimitedProtocol(AnswerTimeoutProtocol):
    """Bounds the time, the bytes and the number of the headers of a request. Use `limited_protocol`.

    uvicorn waits for headers without limit and keeps whatever comes, so a few thousand idle sockets, or a single fast
    one, would exhaust the process. The limit of time also holds for the rest of a body that was answered before it had
    arrived, and that of bytes for trailers, which are dropped. What cannot be parsed is answered with a problem
    document as well.
    """

    header_timeout: float
    max_header_bytes: int
    max_headers: int

    _deadline: asyncio.TimerHandle | None = None
    _in_head = True
    _head_bytes = 0
    _kept_bytes = 0
    """What has come since the last byte of a body: the parser or the list of headers may hold it."""
    _error: ServiceError | None = None
    """What is wrong with the request that is being parsed."""
    _ignoring_input = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        """A new connection has to send a request in time."""
        super().connection_made(transport)
        self._arm(self.header_timeout)

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the timers."""
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Data has come. The parser reports a header only when it is complete, so its bytes are counted here."""
        if self._ignoring_input:
            return
        self._kept_bytes += len(data)
        super().data_received(data)
        if self._kept_bytes > self.max_header_bytes and not self._ignoring_input:
            self._refuse(self._too_large())

    def on_message_begin(self) -> None:
        """The first byte of a request, of which a connection may carry many."""
        super().on_message_begin()
        self._in_head, self._head_bytes = True, 0
        self._arm(self.header_timeout)

    def on_url(self, url: bytes) -> None:
        """A piece of the path or the query."""
        super().on_url(url)
        self._head_bytes += len(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; or a trailer, which is dropped, since it must not be taken for a header."""
        if self._in_head:
            super().on_header(name, value)
            self._head_bytes += len(name) + len(value)

    def on_headers_complete(self) -> None:
        """The headers are complete; from here on the application has its own limits."""
        self._in_head, self._kept_bytes = False, 0
        self._disarm()
        if self._head_bytes > self.max_header_bytes or len(self.headers) > self.max_headers:
            self._error = self._too_large()
        elif len(self.pipeline) >= _MAX_PIPELINED:
            self._error = MalformedRequest("Too many requests at once on one connection.")
        if self._error is not None:
            raise self._error  # stops the parser, which then calls send_400_response
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._kept_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The body has arrived."""
        self._kept_bytes = 0
        self._disarm()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """The application has answered; the rest of the body must arrive in time."""
        super().on_response_complete()
        if self.cycle.response_complete and self.cycle.more_body:
            self._arm(self.header_timeout)

    def handle_websocket_upgrade(self) -> None:
        """Give the connection to the WebSocket protocol, without timers; refused while another answer is being sent."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._refuse(MalformedRequest("A WebSocket cannot be opened before the answer to the request before."))
            return
        self._disarm()
        self.stop_watching()
        super().handle_websocket_upgrade()

    def send_400_response(self, msg: str) -> None:
        """Answer a request that the parser could not read."""
        self._refuse(self._error or MalformedRequest("This is not a valid HTTP request."))

    def _too_large(self) -> HeadersTooLarge:
        limits = f"{self.max_header_bytes} bytes, and there may be {self.max_headers} headers"
        return HeadersTooLarge(f"Path, query and headers may have {limits}.")

    def _refuse(self, error: ServiceError) -> None:
        """Answer in place of the application, which may not know of the request yet, and close."""
        self._ignoring_input = True
        if self.cycle is not None and not self.cycle.response_complete:
            # The application sees a client that has left.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            if self.cycle.response_started or self.pipeline:
                self._close()  # in the middle of another answer, this one could not be told from it
                return
        problem = problem_of(error, uuid.uuid4().hex)
        body = orjson.dumps(problem)
        headers = [
            *self.server_state.default_headers,
            (b"content-type", PROBLEM_MEDIA_TYPE.encode()),
            (b"content-length", b"%d" % len(body)),
            (b"x-request-id", problem["request_id"].encode()),
            (b"connection", b"close"),
        ]
        status = HTTPStatus(problem["status"])
        lines = [f"HTTP/1.1 {status.value} {status.phrase}".encode(), *(b"%s: %s" % header for header in headers)]
        self.transport.write(b"\r\n".join([*lines, b"", body]))
        self._arm(_LINGER)

    def _arm(self, seconds: float) -> None:
        self._disarm()
        self._deadline = self.loop.call_later(seconds, self._close)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _close(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()


def limited_protocol(*, header_timeout: float, max_header_bytes: int, max_headers: int) -> type[LimitedProtocol]:
    """The protocol class for `uvicorn.Config(http=…)`.

    Args:
        header_timeout: seconds for the headers of a request.
        max_header_bytes: bytes that path, query and headers may have together.
        max_headers: how many headers there may be.
    """
    limits = {"header_timeout": header_timeout, "max_header_bytes": max_header_bytes, "max_headers": max_headers}
    return type("LimitedProtocol", (LimitedProtocol,), limits)
