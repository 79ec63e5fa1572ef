import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from loadtests.client import Client, Request
from loadtests.with_processes import upload


class Server(ThreadingHTTPServer):
    """Counts requests and connections; answers `status`."""

    daemon_threads = True
    status = 200
    requests = 0
    connections: set[int]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests += 1
        self.server.connections.add(self.client_address[1])
        self.send_response(self.server.status)
        self.send_header("Server-Timing", "decode;dur=1.500, inference;dur=20.000")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as made:
        made.connections = set()
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def test_every_request_is_sent_once_over_one_connection_a_caller(server: Server) -> None:
    load = Client().load(Request(server.server_port, "/", b"abc", "text/plain"), callers=3, requests=20)
    assert server.requests == 20
    assert len(server.connections) <= 3
    assert len(load.latencies) == len(load.stages) == 20
    assert load.stages[0] == {"decode": 0.0015, "inference": 0.02}
    assert 0 < max(load.latencies) <= load.seconds


def test_another_status_is_an_error(server: Server) -> None:
    server.status = 429
    with pytest.raises(RuntimeError, match=r"status 429.*abc"):
        Client().load(Request(server.server_port, "/", b"abc", "text/plain"), callers=2, requests=4)


def test_uploads_are_forms_with_a_wav_file() -> None:
    request = upload(1, 1.0)
    assert request.content_type.startswith("multipart/form-data; boundary=")
    assert b'name="file"; filename="clip.wav"' in request.body
    assert b"WAVEfmt" in request.body
    assert len(request.body) > 2 * 16_000
