"""uvicorn's HTTP protocol with limits that an application cannot set: on headers and on unread responses."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

from uvicorn._types import ASGI3Application, ASGIReceiveCallable, ASGISendCallable, ASGISendEvent, Scope
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from service.api.server.half_close import HalfCloseProtocol
from service.api.server.refusal import refusal
from service.errors import HeadersTooLarge, MalformedRequest, ServiceError
from service.settings.settings import Settings

_MAX_PIPELINED = 16
"""Requests that may wait on one connection while another is answered; few clients send even one."""

LOCAL_CLIENT = "127.0.0.1", 0
"""The address of clients of a Unix domain socket, so that `trusted_proxies` can name a proxy on this machine."""

_HOST = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=%:\[\]-]*")
"""The characters of a host and a port in RFC 3986."""


class UnreadResponseProtocol(HalfCloseProtocol):
    """Aborts a connection whose client reads no byte of a response for `unread_timeout` seconds.

    uvicorn would keep the unsent rest of the response (megabytes with frame scores) as long as the client keeps the
    connection, even past the keep-alive timeout, since closing waits for unsent data. Slow readers are not limited.

    The application goes on, and ends, only once no more than the transport's buffer (64 KiB) is unsent. So what is held
    until the end of a request, such as its permit, bounds how many large responses wait in memory.
    """

    unread_timeout = 30.0

    _unread_timer: asyncio.TimerHandle | None = None
    _unread = 0
    _resumed = False

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed: stop the timer."""
        self.stop_unread_timer()
        super().connection_lost(exc)

    def stop_unread_timer(self) -> None:
        """Stop the timer; called as well when another protocol takes over the connection."""
        if self._unread_timer is not None:
            self._unread_timer.cancel()
            self._unread_timer = None

    def pause_writing(self) -> None:
        """The transport's write buffer is full."""
        super().pause_writing()
        self._start_unread_timer()

    def resume_writing(self) -> None:
        """Most of the transport's write buffer has been sent."""
        super().resume_writing()
        self._resumed = True

    def on_response_complete(self) -> None:
        """The end of a response was given to the transport, which may still buffer it."""
        super().on_response_complete()
        self._start_unread_timer()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        super()._start_asgi_task(cycle, _until_sent(app, self.flow))

    def _start_unread_timer(self) -> None:
        if self._unread_timer is None and (unread := self.transport.get_write_buffer_size()):
            self._unread, self._resumed = unread, False
            self._unread_timer = self.loop.call_later(self.unread_timeout, self._check_progress)

    def _check_progress(self) -> None:
        self._unread_timer = None
        if self._resumed or self.transport.get_write_buffer_size() < self._unread:
            self._start_unread_timer()
        else:
            self.transport.abort()


def _until_sent(app: ASGI3Application, flow: FlowControl) -> ASGI3Application:
    """Let `send` wait until the transport takes more; that of uvicorn waits only before it sends."""

    async def serve(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        async def send_and_wait(message: ASGISendEvent) -> None:
            await send(message)
            await flow.drain()

        await app(scope, receive, send_and_wait)

    return serve


class LimitedProtocol(UnreadResponseProtocol):
    """Limits the time, the bytes and the number of the headers of a request. Use `limited_protocol`.

    uvicorn waits for headers without limit and keeps all of them, so a few thousand idle sockets, or a single fast one,
    would exhaust the process. If a response is sent before the whole body has arrived, the time limit also holds for
    the rest of the body; the byte limit holds for trailers too, which are dropped. Bytes that cannot be parsed are
    answered with a problem document.
    """

    _timer: asyncio.TimerHandle | None = None
    _in_head = True
    _head_bytes = 0
    _buffered_bytes = 0
    """Bytes received since the last byte of a body, which may still be in memory."""
    _error: ServiceError | None = None
    """Why the request that is being parsed is refused."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        """A new connection must send a request in time."""
        super().connection_made(transport)
        if self.config.uds is not None:
            self.client = LOCAL_CLIENT
        self._start_timer(self.settings.header_timeout)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed: stop the timers."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse `data`. The parser reports a header only once it is complete, so its bytes are counted here."""
        self._buffered_bytes += len(data)
        super().data_received(data)
        if self._buffered_bytes > self.settings.max_header_bytes and not self._lingering:
            self._refuse(self._too_large())

    def on_message_begin(self) -> None:
        """The first byte of a request has arrived; a connection may carry many requests."""
        super().on_message_begin()
        self._in_head, self._head_bytes = True, 0
        self._start_timer(self.settings.header_timeout)

    def on_url(self, url: bytes) -> None:
        """Handle a part of the path or the query."""
        super().on_url(url)
        self._head_bytes += len(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Handle a header. A trailer is dropped: the application must not take it for a header."""
        if self._in_head:
            super().on_header(name, value)
            self._head_bytes += len(name) + len(value)

    def on_headers_complete(self) -> None:
        """Check the limits; the middleware limits the body."""
        self._in_head, self._buffered_bytes = False, 0
        self._stop_timer()
        self._error = self._error_of_headers()
        if self._error is not None:
            raise self._error  # stops the parser, which then calls send_400_response
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Handle a part of the body."""
        self._buffered_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The body has arrived."""
        self._buffered_bytes = 0
        self._stop_timer()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """The application has answered; the rest of the body must arrive in time."""
        super().on_response_complete()
        if self.cycle.response_complete and self.cycle.more_body and not self._lingering:
            self._start_timer(self.settings.header_timeout, self.linger)

    def handle_websocket_upgrade(self) -> None:
        """Give the connection to the WebSocket protocol, without timers; refused while a response is being sent."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._refuse(MalformedRequest("A WebSocket cannot be opened before the previous request is answered."))
            return
        self._stop_timer()
        self.stop_unread_timer()
        super().handle_websocket_upgrade()

    def send_400_response(self, msg: str) -> None:
        """Answer a request that the parser rejected."""
        self._refuse(self._error or MalformedRequest("This is not a valid HTTP request."))

    def _error_of_headers(self) -> ServiceError | None:
        if self._head_bytes > self.settings.max_header_bytes or len(self.headers) > self.settings.max_headers:
            return self._too_large()
        version = self.parser.get_http_version()
        hosts = [value.strip() for name, value in self.headers if name == b"host"]
        codings = [value.strip().lower() for name, value in self.headers if name == b"transfer-encoding"]
        problem = None
        if version not in ("1.0", "1.1"):
            problem = "The service speaks HTTP/1.1 and HTTP/1.0."
        elif self.parser.get_method() == b"CONNECT":  # the parser takes what follows for another protocol
            problem = "This is not a proxy."
        elif len(hosts) > 1 or (not hosts and version == "1.1") or not all(map(_HOST.fullmatch, hosts)):
            problem = "A request must have one Host header, with a name or an address."
        elif codings and (version == "1.0" or codings != [b"chunked"]):
            problem = "The only Transfer-Encoding is chunked, in HTTP/1.1."
        elif len(self.pipeline) >= _MAX_PIPELINED:
            problem = "Too many requests at once on one connection."
        return None if problem is None else MalformedRequest(problem)

    def _too_large(self) -> HeadersTooLarge:
        limits = f"{self.settings.max_header_bytes} bytes, and there may be {self.settings.max_headers} headers"
        return HeadersTooLarge(f"Path, query and headers may have {limits}.")

    def _refuse(self, error: ServiceError) -> None:
        """Send the problem document from here, since the application may not have the request yet, and close."""
        self._stop_timer()
        if self.cycle is not None and not self.cycle.response_complete:
            # To the application, the client has disconnected.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            if self.cycle.response_started or self.pipeline:
                self.linger()  # the client would take the problem document for a part of the other response
                return
        defaults = [(name.decode(), value.decode()) for name, value in self.server_state.default_headers]
        self.transport.write(refusal(error, defaults).serialize())
        self.linger()

    def _start_timer(self, seconds: float, expired: Callable[[], None] | None = None) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(seconds, expired or self.transport.close)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def limited_protocol(settings: Settings) -> type[LimitedProtocol]:
    """The protocol class for `uvicorn.Config(http=…)`, with the limits on headers of `settings`."""
    return type("LimitedProtocol", (LimitedProtocol,), {"settings": settings})
