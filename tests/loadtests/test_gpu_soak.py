from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from loadtests import gpu_soak as module
from loadtests.gpu_soak import Soak

MEMORY = {"GPU, allocated": 1e9, "GPU, reserved": 2e9, "resident": 1e9}


def result(late: dict[str, float] | None = None, *, answered: int = 10, failed: int = 0) -> Soak:
    return Soak(answered, 1, failed, 1.0, 0.1, 0.2, MEMORY, {**MEMORY, **(late or {})})


def test_what_counts_as_a_problem() -> None:
    assert result().problems() == []
    assert result({"GPU, reserved": 2.2e9, "resident": 1.1e9}).problems() == []
    assert result(answered=0).problems() == ["0 requests were answered and 0 failed"]
    assert result(failed=1).problems() == ["10 requests were answered and 1 failed"]
    assert result({"GPU, allocated": 1e9 + 1}).problems() == ["memory that the GPU has allocated grows"]
    assert result({"resident": 1.3e9}).problems() == ["memory grows: resident from 1000 to 1300 MB"]


class Handler(BaseHTTPRequestHandler):
    """Answers every third request with 429, every tenth not at all."""

    protocol_version = "HTTP/1.1"
    count = 0

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        Handler.count += 1
        if Handler.count % 10 == 0:
            self.close_connection = True
            return
        self.send_response(429 if Handler.count % 3 == 0 else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self) -> None:
        body = b'# HELP x y\nser_gpu_memory_bytes{kind="allocated"} 5.0\nprocess_resident_memory_bytes 7e6\n'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    Handler.count = 0
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_every_request_is_counted_whatever_becomes_of_it(port: int) -> None:
    statuses = [status for status, _ in module._send_all(port, 1, 20)]
    assert [statuses.count(status) for status in (200, 429, 0)] == [12, 6, 2]


def test_memory_is_read_from_the_metrics(port: int) -> None:
    assert module._memory(port) == {"GPU, allocated": 5.0, "resident": 7e6}
