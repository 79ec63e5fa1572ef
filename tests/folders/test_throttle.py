"""The limit of concurrent calls, after refusals and after a time without."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from service.folders import throttle as throttle_module
from service.folders.throttle import Throttle


class LimitedServer:
    """Accepts a limited number of calls at a time.

    Attributes:
        limit: this number.
        refusals: number of refused calls.
        most: greatest number of calls at a time.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.refusals = 0
        self.most = 0
        self._inside = 0
        self._lock = threading.Lock()

    def accepts(self) -> bool:
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


def make_calls(server: LimitedServer, throttle: Throttle, calls: int, threads: int) -> int:
    """Make calls and repeat each until it is accepted; returns the number of refusals."""
    before, server.most = server.refusals, 0

    def one(_: int) -> None:
        while True:
            with throttle:
                if server.accepts():
                    return
                throttle.refused()

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(one, range(calls)))
    return server.refusals - before


def test_without_refusals_there_is_no_limit() -> None:
    server = LimitedServer(limit=100)
    assert make_calls(server, Throttle(), 40, 8) == 0
    assert server.most == 8


def test_refusals_lower_the_limit_to_what_the_server_accepts() -> None:
    server = LimitedServer(limit=2)
    throttle = Throttle()
    assert 1 <= make_calls(server, throttle, 60, 8) < 20
    assert make_calls(server, throttle, 40, 8) == 0
    assert 1 <= server.most <= 2


def test_the_limit_grows_after_a_time_without_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    server = LimitedServer(limit=1)
    throttle = Throttle()
    make_calls(server, throttle, 40, 4)
    server.limit = 10
    monkeypatch.setattr(throttle_module, "_GROWTH_SECONDS", 0.01)
    make_calls(server, throttle, 60, 4)
    assert server.most == 4


def test_one_call_is_always_allowed_and_knows_whether_it_is_the_only_one() -> None:
    throttle = Throttle()
    for _ in range(3):
        with throttle:
            assert throttle.alone
            throttle.refused()
    started = threading.Event()

    def second() -> bool:
        with throttle:
            started.set()
            return throttle.alone

    with ThreadPoolExecutor(1) as pool:
        with throttle:
            waiting = pool.submit(second)
            assert not started.wait(0.05)
        assert waiting.result(5)
    with throttle:
        throttle._limit = 2
        with throttle:
            assert not throttle.alone
