"""Fewer calls after refusals, more after a while without."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from service.folders import throttle
from service.folders.throttle import Throttle


class Server:
    """Counts how many are with it, and refuses those above its limit."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.refusals = 0
        self.inside = 0
        self.most = 0
        self._lock = threading.Lock()

    def call(self, _: int = 0) -> None:
        with self._lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
            self.refusals += self.inside > self.limit
        threading.Event().wait(0.005)
        with self._lock:
            self.inside -= 1


def work(server: Server, turns: Throttle, calls: int, threads: int) -> int:
    """Make calls; how many were refused, and how many at a time there were."""
    before, server.most = server.refusals, 0

    def one(_: int) -> None:
        with turns.turn():
            server.call()

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(one, range(calls)))
    return server.refusals - before


def test_nobody_waits_without_refusals() -> None:
    server = Server(limit=100)
    assert work(server, Throttle(lambda: server.refusals), 40, 8) == 0
    assert server.most == 8


def test_refusals_end_when_as_many_are_under_way_as_the_server_takes() -> None:
    server = Server(limit=2)
    turns = Throttle(lambda: server.refusals)
    assert work(server, turns, 60, 8) > 0
    assert work(server, turns, 40, 8) == 0
    assert 1 <= server.most <= 2


def test_one_call_is_always_possible() -> None:
    server = Server(limit=0)
    assert work(server, Throttle(lambda: server.refusals), 10, 4) == 10


def test_more_are_tried_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(limit=1)
    turns = Throttle(lambda: server.refusals)
    work(server, turns, 40, 4)
    server.limit = 10
    monkeypatch.setattr(throttle, "_GROWTH_SECONDS", 0.01)
    work(server, turns, 60, 4)
    assert server.most == 4
