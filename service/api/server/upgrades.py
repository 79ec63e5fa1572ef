"""Requests that ask for another protocol than WebSocket are served as if they had not asked."""

from __future__ import annotations

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class NoUpgradeProtocol(HttpToolsProtocol):
    """Ignores `Upgrade`, except to a WebSocket.

    The JDK's HttpClient and `curl --http2` offer `Upgrade: h2c` with their first request. httptools takes what follows
    such headers for the other protocol: it would drop the body, or parse it as a request of its own (smuggling). So the
    headers are given to a new parser without `Upgrade`, and then what follows them.
    """

    def data_received(self, data: bytes) -> None:
        """Parse `data`."""
        self._unset_keepalive_if_required()
        rest: bytes | None = data
        while rest is not None:
            rest = self._parse(rest)

    def _parse(self, data: bytes) -> bytes | None:
        """Parse `data`; what must be parsed after it, if there is anything."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.send_400_response("Invalid HTTP request received.")
        except httptools.HttpParserUpgrade as upgrade:
            if not self._ignores_upgrade():
                self.handle_websocket_upgrade()
                return None
            head = self._head_without_upgrade()
            self.parser = httptools.HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as in uvicorn
            return head + data[upgrade.args[0] :]
        return None

    def on_headers_complete(self) -> None:
        """Start to serve the request, unless its headers are parsed again."""
        if not self._ignores_upgrade():
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The body has arrived; that of a request whose headers are parsed again has not begun."""
        if not self._ignores_upgrade():
            super().on_message_complete()

    def _ignores_upgrade(self) -> bool:
        return self.parser.should_upgrade() and not self._should_upgrade()

    def _head_without_upgrade(self) -> bytes:
        version = self.parser.get_http_version().encode()
        lines = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, version)]
        lines += [b"%b: %b" % header for header in self.headers if header[0] != b"upgrade"]
        return b"\r\n".join([*lines, b"", b""])
