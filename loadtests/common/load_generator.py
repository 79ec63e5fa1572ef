"""HTTP load on a server: callers in a closed loop, or an open loop with a given rate.

    closed loop: each caller sends its next request when it has its answer, so that at most as many requests as callers
        are under way
    open loop: requests are due at random moments (a Poisson process), whether or not the server keeps up

Callers are threads with `http.client`, which needs about 0.1 ms of processor time per request; httpx with asyncio needs
1 ms. Where the server runs on the same machine, a generator runs in a `SubprocessWorker`, so that it shares only the
cores with the server.
"""

from __future__ import annotations

import http.client
import itertools
import os
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from loadtests.common.traffic_mix import LoadRequest, TrafficMix, encode_all, request_headers

_TIMEOUT = 600.0
_MAX_RETRY_AFTER = 5.0
_MAX_IDLE = 2.0
"""Seconds without a request after which a connection is opened anew; the server closes it after a few more."""

_STAGE = re.compile(r"(\w+);dur=([0-9.]+)")

REFUSALS = (429, 503)
CONNECTION_FAILED = 0
"""The status of a request whose connection failed."""


@dataclass(frozen=True, slots=True)
class TimedResponse:
    """The answer to one request.

    Attributes:
        status: of the answer, or `CONNECTION_FAILED`.
        latency: seconds from when the request was due to the last byte of its answer.
        finished: moment of that last byte, of `time.perf_counter`.
        audio: seconds of audio in the request.
        stages: seconds by stage, from the header `Server-Timing`; empty where there is none.
        retry_after: seconds from the header `Retry-After` of a refusal, 1 without it; 0 for other answers.
    """

    status: int
    latency: float
    finished: float
    audio: float
    stages: Mapping[str, float] = field(default_factory=dict)
    retry_after: float = 0.0


@dataclass(frozen=True, slots=True)
class Target:
    """A server, and the headers of each request."""

    url: str
    headers: Mapping[str, str] = field(default_factory=lambda: request_headers(os.environ))

    def connect(self) -> http.client.HTTPConnection:
        """A connection, which is opened at its first request.

        Raises:
            ValueError: if the URL is malformed.
        """
        parts = urlsplit(self.url)
        if parts.hostname is None or parts.scheme not in ("http", "https"):
            raise ValueError(f"{self.url!r} is not a URL such as http://127.0.0.1:8000")
        make = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        return make(parts.hostname, parts.port, timeout=_TIMEOUT)


class LoadGenerator:
    """Sends requests to servers. Requests and moments are the same for every new generator."""

    def __init__(self) -> None:
        encode_all()
        self._seeds = itertools.count()

    def callers_for(self, target: Target, callers: int, seconds: float) -> list[TimedResponse]:
        """Closed loop for `seconds`: requests of the traffic mix, a different order for each caller."""
        over = threading.Event()
        timer = threading.Timer(seconds, over.set)
        timer.daemon = True
        timer.start()
        return self.callers_until(target, callers, over)

    def callers_send(
        self, target: Target, callers: int, requests: int, request: LoadRequest | None = None
    ) -> list[TimedResponse]:
        """Closed loop of `requests` requests in all: always `request`, or the traffic mix where that is None."""
        return self._closed_loop(target, callers, threading.Event(), iter(range(requests)), request)

    def callers_until(
        self, target: Target, callers: int, over: threading.Event, request: LoadRequest | None = None
    ) -> list[TimedResponse]:
        """Closed loop until `over` is set: always `request`, or the traffic mix where that is None."""
        return self._closed_loop(target, callers, over, itertools.count(), request)

    def open_loop(self, target: Target, rate: float, seconds: float, connections: int) -> list[TimedResponse]:
        """Have `rate` requests per second of the traffic mix come at random moments for `seconds`.

        Where all connections wait for an answer, a request is sent late; its latency counts from when it was due.
        """
        chance = random.Random(next(self._seeds))
        mix = TrafficMix(next(self._seeds))
        moments = itertools.accumulate(chance.expovariate(rate) for _ in itertools.count())
        due = [(moment, mix.draw()) for moment in itertools.takewhile(lambda moment: moment < seconds, moments)]
        requests, lock, began = iter(due), threading.Lock(), time.perf_counter()

        def send_requests() -> Iterator[TimedResponse]:
            with closing(_Connection(target)) as connection:
                while True:
                    with lock:
                        moment, request = next(requests, (0.0, None))
                    if request is None:
                        return
                    time.sleep(max(0.0, began + moment - time.perf_counter()))
                    yield connection.send(request, began + moment)

        return _in_threads(connections, send_requests)

    def _closed_loop(
        self,
        target: Target,
        callers: int,
        over: threading.Event,
        tickets: Iterator[int],
        request: LoadRequest | None,
    ) -> list[TimedResponse]:
        """Closed loop until `over` is set or there is no ticket left; each request takes one."""

        def send_requests() -> Iterator[TimedResponse]:
            mix = TrafficMix(next(self._seeds))
            with closing(_Connection(target)) as connection:
                connection.open()
                while not over.is_set() and next(tickets, None) is not None:
                    response = connection.send(request or mix.draw(), time.perf_counter())
                    yield response
                    over.wait(min(response.retry_after, _MAX_RETRY_AFTER))

        return _in_threads(callers, send_requests)


class _Connection:
    """A connection that is reused, and opened anew after `_MAX_IDLE` seconds without a request."""

    def __init__(self, target: Target) -> None:
        self._connection = target.connect()
        self._headers = target.headers
        self._last_used = time.perf_counter()

    def open(self) -> None:
        """Connect now, so that the first latency is that of a request alone; a failure shows in the first request."""
        with suppress(OSError):
            self._connection.connect()
        self._last_used = time.perf_counter()

    def send(self, request: LoadRequest, due: float) -> TimedResponse:
        """Send a request that was due at a moment of `time.perf_counter`, and read its answer."""
        if time.perf_counter() - self._last_used > _MAX_IDLE:
            self.close()
        headers = {**self._headers, "Content-Type": request.content_type}
        status, fields = CONNECTION_FAILED, http.client.HTTPMessage()
        try:
            self._connection.request("POST", f"/recognize{request.query}", request.body, headers)
            answer = self._connection.getresponse()
            answer.read()
            status, fields = answer.status, answer.headers
        except (OSError, http.client.HTTPException):
            self.close()
        self._last_used = time.perf_counter()
        return TimedResponse(
            status=status,
            latency=self._last_used - due,
            finished=self._last_used,
            audio=request.seconds,
            stages={name: float(ms) / 1000 for name, ms in _STAGE.findall(fields.get("Server-Timing", ""))},
            retry_after=float(fields.get("Retry-After", 1)) if status in REFUSALS else 0.0,
        )

    def close(self) -> None:
        self._connection.close()


def _in_threads(number: int, responses: Callable[[], Iterable[TimedResponse]]) -> list[TimedResponse]:
    """Run `number` threads at the same time; all their responses, in the order of arrival."""
    collected: list[TimedResponse] = []

    def collect() -> None:
        for response in responses():
            collected.append(response)  # noqa: PERF402 - several threads append to the same list

    with ThreadPoolExecutor(max(1, number)) as pool:
        for thread in [pool.submit(collect) for _ in range(number)]:
            thread.result()
    return collected


def status_counts(responses: Iterable[TimedResponse]) -> Counter[int]:
    """Requests by status."""
    return Counter(response.status for response in responses)
