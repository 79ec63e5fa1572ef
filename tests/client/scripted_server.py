"""A server that sends prepared replies, whatever the request."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal


@dataclass(frozen=True)
class Reply:
    """One reply; `fault` cuts it off or omits it."""

    status: int = 200
    body: bytes = b'{"label": "happy"}'
    headers: dict[str, str] = field(default_factory=dict)
    fault: Literal["none", "no answer", "half"] = "none"
    pause: float = 0.0
    """Seconds before each line of the body."""


def refusal(status: int = 429, retry_after: str | None = "0", code: str = "queue_full") -> Reply:
    """A problem document, with a Retry-After header by default."""
    document = {
        "type": f"urn:emotion2vec-service:problem:{code}",
        "title": "No",
        "status": status,
        "detail": "Not now.",
        "code": code,
        "request_id": "from-the-server",
        "errors": [{"field": "trim", "message": "must be true or false", "kind": "invalid"}],
    }
    headers = {"Content-Type": "application/problem+json"}
    if retry_after is not None:
        headers["Retry-After"] = retry_after
    return Reply(status, json.dumps(document).encode(), headers)


@dataclass
class ReceivedRequest:
    """One request that the server received."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    moment: float


class ScriptedServer:
    """The requests received so far, and the next replies; the last reply is repeated.

    Attributes:
        url: the server's address.
        received: every request, in order.
    """

    def __init__(self, replies: Sequence[Reply]) -> None:
        self._replies = list(replies)
        self._lock = threading.Lock()
        self.received: list[ReceivedRequest] = []
        self.url = ""

    def reply_to(self, request: ReceivedRequest) -> Reply:
        with self._lock:
            self.received.append(request)
            return self._replies.pop(0) if len(self._replies) > 1 else self._replies[0]

    def moments(self) -> list[float]:
        """Seconds from the first request to each."""
        return [request.moment - self.received[0].moment for request in self.received]


@contextmanager
def scripted(*replies: Reply, port: int = 0) -> Iterator[ScriptedServer]:
    """Listen on this port, or a free one, and send one reply after the other."""
    state = ScriptedServer(replies)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            reply = state.reply_to(ReceivedRequest(self.command, self.path, headers, body, time.monotonic()))
            if reply.fault == "no answer":
                self.close_connection = True
                return
            self.send_response(reply.status)
            for name, value in {"Content-Type": "application/json", **reply.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            if reply.fault == "half":
                self.wfile.write(reply.body[: len(reply.body) // 2])
                self.close_connection = True
                return
            for line in reply.body.splitlines(keepends=True):
                time.sleep(reply.pause)
                self.wfile.write(line)
                self.wfile.flush()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """Clients that disconnect early are part of the tests."""

    with Server(("127.0.0.1", port), Handler) as server:
        state.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield state
        finally:
            server.shutdown()
            thread.join()
