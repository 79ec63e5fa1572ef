"""Fewer calls after refusals, more after a while without."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from service.folders import throttle
from service.folders.throttle import Throttle


class Server:
    """Takes so many calls at a time.

    Attributes:
        limit: how many.
        refusals: how many calls it has not taken.
        most: how many it has had at a time.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.refusals = 0
        self.most = 0
        self._inside = 0
        self._lock = threading.Lock()

    def takes(self) -> bool:
        with self._lock:
            if self._inside == self.limit:
                self.refusals += 1
                return False
            self._inside += 1
            self.most = max(self.most, self._inside)
        time.sleep(0.005)
        with self._lock:
            self._inside -= 1
        return True


def work(server: Server, turns: Throttle, calls: int, threads: int) -> int:
    """Make calls until each is taken; returns how many were refused meanwhile."""
    before, server.most = server.refusals, 0

    def one(_: int) -> None:
        while True:
            with turns.turn() as turn:
                if server.takes():
                    return
                turn.refused = True

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(one, range(calls)))
    return server.refusals - before


def test_nobody_waits_without_refusals() -> None:
    server = Server(limit=100)
    assert work(server, Throttle(), 40, 8) == 0
    assert server.most == 8


def test_refusals_end_when_as_many_are_under_way_as_the_server_takes() -> None:
    server = Server(limit=2)
    turns = Throttle()
    assert 1 <= work(server, turns, 60, 8) < 20
    assert work(server, turns, 40, 8) == 0
    assert 1 <= server.most <= 2


def test_more_are_tried_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(limit=1)
    turns = Throttle()
    work(server, turns, 40, 4)
    server.limit = 10
    monkeypatch.setattr(throttle, "_GROWTH_SECONDS", 0.01)
    work(server, turns, 60, 4)
    assert server.most == 4


def test_one_call_is_always_possible_and_knows_whether_it_is_alone() -> None:
    turns = Throttle()
    for _ in range(3):
        with turns.turn() as turn:
            assert turns.alone
            turn.refused = True
    begun = threading.Event()

    def second() -> bool:
        with turns.turn():
            begun.set()
            return turns.alone

    with ThreadPoolExecutor(1) as pool:
        with turns.turn():
            waiting = pool.submit(second)
            assert not begun.wait(0.05)
        assert waiting.result(5)
    with turns.turn():
        turns._limit = 2
        with turns.turn():
            assert not turns.alone
