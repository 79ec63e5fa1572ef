"""Concurrent callers over HTTP; lives in a `Worker`, so that it takes no time of what it measures but the cores'."""

from __future__ import annotations

import http.client
import itertools
import re
import threading
import time
from dataclasses import dataclass

_STAGE = re.compile(r"(\w+);dur=([0-9.]+)")


@dataclass(frozen=True, slots=True)
class Request:
    """One request, sent again and again."""

    port: int
    path: str
    body: bytes
    content_type: str


@dataclass(frozen=True, slots=True)
class Load:
    """What a number of requests took.

    Attributes:
        seconds: from the first byte sent to the last answer.
        latencies: seconds by request, in the order of the answers.
        stages: by request, the seconds that the server says it spent in each stage; empty where it says nothing.
    """

    seconds: float
    latencies: list[float]
    stages: list[dict[str, float]]


class Client:
    """Sends requests over connections that stay open."""

    def load(self, request: Request, callers: int, requests: int) -> Load:
        """Have `callers` callers send `requests` requests in all, each the next one when it has its answer.

        Raises:
            RuntimeError: if an answer has another status than 200.
        """
        tickets = itertools.count()
        answers: list[tuple[float, dict[str, float]]] = []
        failures: list[Exception] = []
        moments: list[float] = []
        ready = threading.Barrier(callers + 1, action=lambda: moments.append(time.perf_counter()))

        def call() -> None:
            connection = http.client.HTTPConnection("127.0.0.1", request.port, timeout=600)
            connection.connect()
            ready.wait()
            try:
                while next(tickets) < requests and not failures:
                    began = time.perf_counter()
                    stages = _exchange(connection, request)
                    answers.append((time.perf_counter() - began, stages))
            except Exception as error:
                failures.append(error)
            finally:
                connection.close()

        threads = [threading.Thread(target=call) for _ in range(callers)]
        for thread in threads:
            thread.start()
        ready.wait()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]
        seconds = time.perf_counter() - moments[0]
        return Load(seconds, [latency for latency, _ in answers], [stages for _, stages in answers])


def _exchange(connection: http.client.HTTPConnection, request: Request) -> dict[str, float]:
    # The same request comes again and again, and shall cost what a new one costs.
    headers = {"Content-Type": request.content_type, "Cache-Control": "no-store"}
    connection.request("POST", request.path, request.body, headers)
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != 200:
        raise RuntimeError(f"status {answer.status}: {body[:300]!r}")
    timing = _STAGE.findall(answer.headers.get("Server-Timing", ""))
    return {stage: float(milliseconds) / 1000 for stage, milliseconds in timing}
