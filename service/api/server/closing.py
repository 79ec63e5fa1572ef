"""The end of connections: a response is read by a client that is still sending, and never sent to nobody."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn._types import ASGI3Application, ASGIReceiveCallable, ASGISendCallable, ASGISendEvent, Scope
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from service.api.server.upgrades import NoUpgradeProtocol
from service.settings.settings import Settings


class LingeringProtocol(NoUpgradeProtocol):
    """Closes a connection only after its client has sent what it had begun to send.

    Closing at once would reset the connection, and a reset destroys a response that the client has not read yet; many
    clients read only after they have sent all. So only the output ends, and what still arrives is discarded, within the
    limits in time and bytes that hold for any body.
    """

    settings: Settings

    _lingering = False
    _linger_timer: asyncio.TimerHandle | None = None
    _linger_until = 0.0
    _discarded = 0

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed: stop the timer."""
        self._stop_linger_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse `data`, or discard it."""
        if not self._lingering:
            super().data_received(data)
            return
        self._discarded += len(data)
        if self._discarded > self.settings.max_body_bytes:
            self.transport.close()
        else:
            self._start_linger_timer()

    def on_response_complete(self) -> None:
        """The end of a response was given to the transport."""
        super().on_response_complete()
        if self._lingering:
            self._unset_keepalive_if_required()  # another timer closes the connection

    def shutdown(self) -> None:
        """The server is shutting down."""
        if not self._lingering:
            super().shutdown()

    def close_after_response(self) -> None:
        """End the output; close the connection, or let it linger if the client may still be sending."""
        if self.cycle is not None and (self.cycle.more_body or self.pipeline):
            self.linger()
        else:
            self.transport.close()

    def linger(self) -> None:
        """End the output, and discard the input until the client closes the connection."""
        if self._lingering or self.transport.is_closing():
            return
        self._lingering = True
        self.pipeline.clear()
        self.transport.write_eof()
        self.flow.resume_reading()
        self._linger_until = self.loop.time() + self.settings.body_timeout
        self._start_linger_timer()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        cycle.transport = _ResponseTransport(self)
        if cycle.scope["http_version"] == "1.0":
            app = _without_chunks(app, cycle)
        super()._start_asgi_task(cycle, app)

    def _start_linger_timer(self) -> None:
        self._stop_linger_timer()
        when = min(self._linger_until, self.loop.time() + self.settings.body_idle_timeout)
        self._linger_timer = self.loop.call_at(when, self.transport.close)

    def _stop_linger_timer(self) -> None:
        if self._linger_timer is not None:
            self._linger_timer.cancel()
            self._linger_timer = None


def _without_chunks(app: ASGI3Application, cycle: RequestResponseCycle) -> ASGI3Application:
    """Let a body of unknown length end with the connection, because clients of HTTP/1.0 know no chunks.

    Args:
        app: the application.
        cycle: serves one request, after which uvicorn closes the connection.
    """

    async def serve(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        until_closed = False

        async def send_plain(message: ASGISendEvent) -> None:
            nonlocal until_closed
            if message["type"] == "http.response.start":
                until_closed = all(name.lower() != b"content-length" for name, _ in message.get("headers", ()))
                if until_closed:
                    cycle.chunked_encoding = False
            elif message["type"] == "http.response.body" and until_closed:
                cycle.expected_content_length = len(message.get("body", b""))  # of the rest, as far as uvicorn knows
            await send(message)

        await app(scope, receive, send_plain)

    return serve


class _ResponseTransport(asyncio.Transport):
    """What uvicorn uses of a connection's transport to send a response; closing waits for the client."""

    def __init__(self, protocol: LingeringProtocol) -> None:
        super().__init__()
        self._protocol = protocol

    def write(self, data: Any) -> None:
        """Send bytes."""
        self._protocol.transport.write(data)

    def is_closing(self) -> bool:
        """Whether nothing more can be sent."""
        return self._protocol.transport.is_closing()

    def close(self) -> None:
        """Close the connection after the response."""
        self._protocol.close_after_response()
