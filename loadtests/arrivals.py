"""Requests of the mix in `loadtests.traffic`, from callers of two kinds.

    closed: each caller sends the next request when it has its answer, so that the server is never asked for more
    open: requests come when they come, whatever the server does, as those of many callers would

Lives in a `Worker`, so that it takes no time of what it measures but the cores'.
"""

from __future__ import annotations

import http.client
import itertools
import os
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from loadtests.traffic import Call, Mix, encode_all, headers

_TIMEOUT = 120.0
_LONGEST_WAIT = 5.0
_LONGEST_REST = 2.0
REFUSALS = (429, 503)
BROKEN = 0
"""The status of a request whose connection broke."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One request: its status, the seconds from when it was due to its answer, and its seconds of audio."""

    status: int
    latency: float
    audio: float


@dataclass(frozen=True, slots=True)
class Target:
    """A server, and what is sent with each request."""

    url: str
    headers: Mapping[str, str] = field(default_factory=lambda: headers(os.environ))

    def connect(self) -> http.client.HTTPConnection:
        """A connection, made at the first request."""
        parts = urlsplit(self.url)
        if parts.hostname is None or parts.scheme not in ("http", "https"):
            raise ValueError(f"{self.url} is not an address such as http://127.0.0.1:8000")
        make = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        return make(parts.hostname, parts.port, timeout=_TIMEOUT)


class Arrivals:
    """Sends requests to a server.

    Args:
        target: the server.
    """

    def __init__(self, target: Target) -> None:
        encode_all()
        self._target = target
        self._seeds = itertools.count()

    def closed(self, callers: int, seconds: float) -> list[Outcome]:
        """Have `callers` callers ask for `seconds`; one that was refused waits as it was told to."""
        end = time.monotonic() + seconds
        outcomes: list[Outcome] = []

        def call() -> None:
            mix, line = Mix(next(self._seeds)), _Line(self._target)
            while (now := time.monotonic()) < end:
                outcome, wait = line.ask(mix.draw(), now)
                outcomes.append(outcome)
                time.sleep(max(0.0, min(wait, _LONGEST_WAIT, end - time.monotonic())))
            line.close()

        _together(callers, call)
        return outcomes

    def open(self, rate: float, seconds: float, connections: int) -> list[Outcome]:
        """Have `rate` requests a second come at random moments for `seconds`.

        Where all connections wait for an answer, a request is sent late; its latency counts from when it was due.
        """
        chance = random.Random(next(self._seeds))
        mix = Mix(next(self._seeds))
        moments = itertools.accumulate(chance.expovariate(rate) for _ in itertools.count())
        calls = iter([(moment, mix.draw()) for moment in itertools.takewhile(lambda moment: moment < seconds, moments)])
        lock, began = threading.Lock(), time.monotonic()
        outcomes: list[Outcome] = []

        def call() -> None:
            line = _Line(self._target)
            while True:
                with lock:
                    due = next(calls, None)
                if due is None:
                    break
                moment, request = due
                time.sleep(max(0.0, began + moment - time.monotonic()))
                outcomes.append(line.ask(request, began + moment)[0])
            line.close()

        _together(connections, call)
        return outcomes


class _Line:
    """A connection, which is made anew after a rest: the server closes it some seconds after the last answer."""

    def __init__(self, target: Target) -> None:
        self._connection = target.connect()
        self._headers = target.headers
        self._used = 0.0

    def ask(self, call: Call, due: float) -> tuple[Outcome, float]:
        """The outcome of a request, and how long to wait before the next one."""
        if time.monotonic() - self._used > _LONGEST_REST:
            self.close()
        wait = 0.0
        headers = {**self._headers, "Content-Type": call.content_type}
        try:
            self._connection.request("POST", f"/recognize{call.query}", call.body, headers)
            answer = self._connection.getresponse()
            answer.read()
            status = answer.status
            if status in REFUSALS:
                wait = float(answer.headers.get("Retry-After", 1))
        except (OSError, http.client.HTTPException):
            self.close()
            status = BROKEN
        self._used = time.monotonic()
        return Outcome(status, self._used - due, call.seconds), wait

    def close(self) -> None:
        self._connection.close()


def _together(number: int, work: Callable[[], None]) -> None:
    threads = [threading.Thread(target=work) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
