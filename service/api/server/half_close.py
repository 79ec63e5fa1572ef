"""Clients that end their output after their last request and wait for the answer, as `nc -N` does."""

from __future__ import annotations

import asyncio
import socket

from service.api.server.closing import LingeringProtocol

PROBE_AFTER = 1.0
"""Seconds after which a client that has ended its output is sent something, to find out whether it is still there."""

_LOOK_EVERY = 0.1


class HalfCloseProtocol(LingeringProtocol):
    """Answers a client that ends its output after a whole request.

    TCP does not tell whether such a client has ended its output or gone away, until it is sent something: only the
    system of a client that is gone resets the connection. Requests of clients that are gone must be cancelled, as they
    would keep others waiting. So a request that takes longer is answered with `100 Continue` first, which clients
    of HTTP/1.1 must skip. Those of HTTP/1.0 need not, so that their requests are computed to the end.
    """

    _look_timer: asyncio.TimerHandle | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed: stop the timer."""
        if self._look_timer is not None:
            self._look_timer.cancel()
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]  # uvicorn always closes
        """The client has ended its output: close the connection, unless a whole request waits for its answer."""
        if self._lingering or not self._waits_for_answer():
            return False
        self.cycle.keep_alive = False
        self._look_timer = self.loop.call_later(PROBE_AFTER, self._probe)
        return True

    def _waits_for_answer(self) -> bool:
        """Whether the last request is whole, no other has begun, and its response has not begun.

        A client that ends its output while it is being answered has gone away.
        """
        cycle = self.cycle
        whole = cycle is not None and cycle.scope is self.scope and not cycle.more_body
        return whole and not cycle.response_started

    def _probe(self) -> None:
        cycle = self.cycle
        if cycle.scope["http_version"] == "1.1" and not self.pipeline and not cycle.response_started:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._look_for_reset()

    def _look_for_reset(self) -> None:
        """Abort the connection if the client has reset it: the transport, which reads no more, does not notice."""
        if self.transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.transport.abort()
        else:
            self._look_timer = self.loop.call_later(_LOOK_EVERY, self._look_for_reset)
