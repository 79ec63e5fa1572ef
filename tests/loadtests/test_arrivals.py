"""Callers against a little server that answers at once, or is told to misbehave."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from loadtests.arrivals import BROKEN, Arrivals, Outcome, Target
from loadtests.traffic import headers


class Server(ThreadingHTTPServer):
    """Counts what it gets.

    Attributes:
        status: of every answer; None breaks the connection instead.
        takes: seconds until an answer.
        seen: content types, paths and headers of the requests.
        most: requests at the same time.
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
    server: Server

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
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def test_callers_ask_again_when_they_have_their_answer(server: Server) -> None:
    server.takes = 0.02
    outcomes = Arrivals(Target(server.url)).closed(3, 3.0)
    assert server.most == 3
    assert len(outcomes) == server.types.total()
    assert 15 < len(outcomes) <= 450
    assert len(server.types) == 4, "all codecs"
    assert {outcome.status for outcome in outcomes} == {200}
    assert {outcome.audio for outcome in outcomes} <= {1.0, 3.0, 10.0}
    assert min(outcome.latency for outcome in outcomes) >= 0.02


def test_callers_who_are_refused_wait_as_they_are_told(server: Server) -> None:
    server.status = 429
    began = time.monotonic()
    outcomes = Arrivals(Target(server.url)).closed(2, 1.0)
    assert [outcome.status for outcome in outcomes] == [429, 429]
    assert 1.0 <= time.monotonic() - began < 4.9, "but not past the end"


def test_arrivals_do_not_wait_for_answers(server: Server) -> None:
    server.takes = 0.2
    outcomes = Arrivals(Target(server.url)).open(50.0, 1.0, connections=40)
    assert len(outcomes) == pytest.approx(50, abs=25)
    assert server.most > 4
    assert all(outcome.latency >= 0.2 for outcome in outcomes)


def test_what_is_sent_late_counts_from_when_it_was_due(server: Server) -> None:
    server.takes = 0.05
    outcomes = Arrivals(Target(server.url)).open(60.0, 0.5, connections=1)
    assert server.most == 1
    assert max(outcome.latency for outcome in outcomes) > 0.3


def test_a_connection_that_has_rested_is_made_anew(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loadtests.arrivals._LONGEST_REST", 60.0)
    Arrivals(Target(server.url)).open(100.0, 0.2, connections=1)
    assert len(server.ports) == 1
    monkeypatch.setattr("loadtests.arrivals._LONGEST_REST", 0.0)
    Arrivals(Target(server.url)).open(100.0, 0.2, connections=1)
    assert len(server.ports) > 5


def test_the_same_moments_and_calls_every_time(server: Server) -> None:
    first, second = (
        [outcome.audio for outcome in Arrivals(Target(server.url)).open(60.0, 0.5, connections=1)] for _ in range(2)
    )
    assert first == second


def test_broken_connections_are_outcomes(server: Server) -> None:
    server.status = None
    outcomes = Arrivals(Target(server.url)).open(20.0, 0.5, connections=2)
    assert outcomes
    assert {outcome.status for outcome in outcomes} == {BROKEN}
    assert isinstance(outcomes[0], Outcome)


def test_answers_come_from_the_model_and_keys_are_sent(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    Arrivals(Target(server.url)).open(50.0, 0.2, connections=1)
    monkeypatch.setenv("LOAD_API_KEY", "secret")
    Arrivals(Target(server.url)).open(50.0, 0.2, connections=1)
    assert server.caching == {"no-cache"}
    assert server.keys == {None, "secret"}
    assert headers({}) == {"Cache-Control": "no-cache"}


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://x", ""])
def test_an_address_must_be_one(url: str) -> None:
    with pytest.raises(ValueError, match="not an address"):
        Target(url).connect()
