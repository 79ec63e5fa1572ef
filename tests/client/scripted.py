"""A server that answers as a test has written it down, whatever it is asked."""

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
    """One answer; `fault` cuts it off, or leaves it out."""

    status: int = 200
    body: bytes = b'{"label": "happy"}'
    headers: dict[str, str] = field(default_factory=dict)
    fault: Literal["none", "no answer", "half"] = "none"
    pause: float = 0.0
    """Seconds before each line of the body."""


def refusal(status: int = 429, retry_after: str | None = "0", code: str = "queue_full") -> Reply:
    """A problem document that may ask to come back."""
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
class Asked:
    """One request that came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    moment: float


class Scripted:
    """What was asked so far, and what is answered next; the last reply stays.

    Attributes:
        url: where it listens.
        asked: every request, in order.
    """

    def __init__(self, replies: Sequence[Reply]) -> None:
        self._replies = list(replies)
        self._lock = threading.Lock()
        self.asked: list[Asked] = []
        self.url = ""

    def take(self, asked: Asked) -> Reply:
        with self._lock:
            self.asked.append(asked)
            return self._replies.pop(0) if len(self._replies) > 1 else self._replies[0]

    def moments(self) -> list[float]:
        """Seconds from the first request to each."""
        return [asked.moment - self.asked[0].moment for asked in self.asked]


@contextmanager
def scripted(*replies: Reply, port: int = 0) -> Iterator[Scripted]:
    """Listen on this port, or a free one, and answer with one reply after the other."""
    script = Scripted(replies)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            reply = script.take(Asked(self.command, self.path, headers, body, time.monotonic()))
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
            """Callers that leave early are part of the tests."""

    with Server(("127.0.0.1", port), Handler) as server:
        script.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield script
        finally:
            server.shutdown()
            thread.join()
