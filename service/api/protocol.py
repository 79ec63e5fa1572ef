"""uvicorn's HTTP protocol with the one timeout that an application cannot have: for the headers of a request."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class HeaderTimeoutProtocol(HttpToolsProtocol):
    """Closes connections that begin a request and do not get its headers through.

    uvicorn waits for headers without limit, so that a few thousand idle sockets would exhaust the process. The same
    limit holds for the rest of a body that was answered before it had arrived. Use `with_header_timeout`.
    """

    header_timeout: float

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        """A new connection has to say what it wants."""
        super().connection_made(transport)
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        self._disarm()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """The first byte of a request, of which a kept-alive connection may see many."""
        super().on_message_begin()
        self._arm()

    def on_headers_complete(self) -> None:
        """From here on the application has its own limits."""
        self._disarm()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The body is through as well."""
        self._disarm()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """The application is done; what is left of the body must not come in for ever."""
        super().on_response_complete()
        if self.cycle.response_complete and self.cycle.more_body:
            self._arm()

    def _arm(self) -> None:
        self._disarm()
        self._deadline = self.loop.call_later(self.header_timeout, self._give_up)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()


def with_header_timeout(seconds: float) -> type[HeaderTimeoutProtocol]:
    """The protocol class for `uvicorn.Config(http=…)`, with `seconds` for the headers of a request."""
    return type("HeaderTimeoutProtocol", (HeaderTimeoutProtocol,), {"header_timeout": seconds})
