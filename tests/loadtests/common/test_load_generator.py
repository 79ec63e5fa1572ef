"""The load generator with a small server that answers at once, or misbehaves."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from loadtests.common.load_generator import CONNECTION_FAILED, LoadGenerator, Target, TimedResponse, status_counts
from loadtests.common.traffic_mix import LoadRequest, request_headers

REQUEST = LoadRequest("utterance", "", b"abc", "text/plain", 1.0)


class CountingServer(ThreadingHTTPServer):
    """Counts requests.

    Attributes:
        status: of every answer; None closes the connection instead.
        takes: seconds until an answer.
        types, ports, keys, caching: content types, client ports and headers of the requests.
        most: the largest number of requests at the same time.
    """

    daemon_threads = True
    status: int | None = 200
    takes = 0.0

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock = threading.Lock()
        self.types: Counter[str] = Counter()
        self.keys: set[str | None] = set()
        self.caching: set[str | None] = set()
        self.ports: set[int] = set()
        self.now = self.most = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: CountingServer

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        server = self.server
        with server.lock:
            server.types[self.headers["Content-Type"]] += 1
            server.ports.add(self.client_address[1])
            server.keys.add(self.headers["X-API-Key"])
            server.caching.add(self.headers["Cache-Control"])
            server.now += 1
            server.most = max(server.most, server.now)
        time.sleep(server.takes)
        with server.lock:
            server.now -= 1
        if server.status is None:
            self.close_connection = True
            return
        self.send_response(server.status)
        self.send_header("Retry-After", "60")
        self.send_header("Server-Timing", "decode;dur=1.500, inference;dur=20.000")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[CountingServer]:
    with CountingServer() as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def open_loop(server: CountingServer, rate: float, seconds: float, connections: int) -> list[TimedResponse]:
    return LoadGenerator().open_loop(Target(server.url), rate, seconds, connections)


def test_closed_loop_callers_send_the_next_request_after_an_answer(server: CountingServer) -> None:
    server.takes = 0.02
    responses = LoadGenerator().callers_for(Target(server.url), 3, 3.0)
    assert server.most == 3
    assert len(responses) == server.types.total()
    assert 15 < len(responses) <= 450
    assert len(server.types) == 4, "all codecs"
    assert {response.status for response in responses} == {200}
    assert {response.audio for response in responses} <= {1.0, 3.0, 10.0}
    assert min(response.latency for response in responses) >= 0.02


def test_refused_callers_wait_as_retry_after_says(server: CountingServer) -> None:
    server.status = 429
    began = time.monotonic()
    responses = LoadGenerator().callers_for(Target(server.url), 2, 1.0)
    assert [(response.status, response.retry_after) for response in responses] == [(429, 60.0)] * 2
    assert 1.0 <= time.monotonic() - began < 4.9, "but not past the end"


def test_a_number_of_requests_is_sent_over_one_connection_per_caller(server: CountingServer) -> None:
    began = time.perf_counter()
    responses = LoadGenerator().callers_send(Target(server.url, {"Cache-Control": "no-store"}), 3, 20, REQUEST)
    elapsed = time.perf_counter() - began
    assert server.types == {"text/plain": 20}
    assert server.caching == {"no-store"}
    assert len(server.ports) <= 3
    assert len(responses) == 20
    assert responses[0].stages == {"decode": 0.0015, "inference": 0.02}
    assert all(0 < response.latency < elapsed for response in responses)
    assert all(began < response.finished < began + elapsed for response in responses)


def test_a_number_of_requests_counts_failures(server: CountingServer) -> None:
    server.status = None
    assert status_counts(LoadGenerator().callers_send(Target(server.url), 2, 9)) == {CONNECTION_FAILED: 9}


def test_a_server_that_refuses_connections_fails_every_request() -> None:
    with CountingServer() as closed:
        url = closed.url
    assert status_counts(LoadGenerator().callers_send(Target(url), 2, 3, REQUEST)) == {CONNECTION_FAILED: 3}


def test_callers_stop_when_told(server: CountingServer) -> None:
    over = threading.Event()
    timer = threading.Timer(0.5, over.set)
    timer.start()
    responses = LoadGenerator().callers_until(Target(server.url), 1, over, REQUEST)
    assert len(responses) == server.types["text/plain"] > 1
    assert LoadGenerator().callers_until(Target(server.url), 0, over, REQUEST) == []


def test_the_open_loop_does_not_wait_for_answers(server: CountingServer) -> None:
    server.takes = 0.2
    responses = open_loop(server, 50.0, 1.0, connections=40)
    assert len(responses) == pytest.approx(50, abs=25)
    assert server.most > 4
    assert all(response.latency >= 0.2 for response in responses)


def test_latency_of_a_late_request_counts_from_when_it_was_due(server: CountingServer) -> None:
    server.takes = 0.05
    responses = open_loop(server, 60.0, 0.5, connections=1)
    assert server.most == 1
    assert max(response.latency for response in responses) > 0.3


def test_an_idle_connection_is_opened_anew(server: CountingServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loadtests.common.load_generator._MAX_IDLE", 60.0)
    open_loop(server, 100.0, 0.2, connections=1)
    assert len(server.ports) == 1
    monkeypatch.setattr("loadtests.common.load_generator._MAX_IDLE", 0.0)
    open_loop(server, 100.0, 0.2, connections=1)
    assert len(server.ports) > 5


def test_moments_and_requests_are_the_same_every_time(server: CountingServer) -> None:
    first, second = ([each.audio for each in open_loop(server, 60.0, 0.5, connections=1)] for _ in range(2))
    assert first == second


def test_the_open_loop_counts_failures(server: CountingServer) -> None:
    server.status = None
    responses = open_loop(server, 20.0, 0.5, connections=2)
    assert status_counts(responses) == {CONNECTION_FAILED: len(responses)}
    assert responses


def test_answers_come_from_the_model_and_keys_are_sent(server: CountingServer, monkeypatch: pytest.MonkeyPatch) -> None:
    open_loop(server, 50.0, 0.2, connections=1)
    monkeypatch.setenv("LOAD_API_KEY", "secret")
    open_loop(server, 50.0, 0.2, connections=1)
    assert server.caching == {"no-cache"}
    assert server.keys == {None, "secret"}
    assert request_headers({}) == {"Cache-Control": "no-cache"}


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://x", ""])
def test_a_malformed_url_is_an_error(url: str) -> None:
    with pytest.raises(ValueError, match="is not a URL"):
        LoadGenerator().callers_send(Target(url), 1, 1)
