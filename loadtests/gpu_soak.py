"""A server under mixed requests for long: whether it fails, and whether its memory grows."""

from __future__ import annotations

import http.client
import threading
import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from loadtests.checkpoint import BenchModel
from loadtests.processes import serving
from loadtests.sides import Side
from loadtests.traffic import Mix

_EARLY = 10
"""Requests of each caller after which memory is looked at first."""

_REFUSED = (429, 503)
_ALLOWED_GROWTH = 0.1
_ALLOWED_BYTES = 1e8
"""Memory may grow by a share and so many bytes: allocators keep what they once had."""

_MEMORY = {
    'ser_gpu_memory_bytes{kind="allocated"}': "GPU, allocated",
    'ser_gpu_memory_bytes{kind="reserved"}': "GPU, reserved",
    "process_resident_memory_bytes": "resident",
}


@dataclass(frozen=True, slots=True)
class Soak:
    """What happened.

    Attributes:
        answered: requests with status 200.
        refused: requests with status 429 or 503.
        failed: all others.
        seconds: that all of it took.
        p50: median latency of answered requests in seconds.
        p99: the 99th percentile.
        early: bytes of memory by kind, after the first requests of every caller.
        late: the same at the end.
    """

    answered: int
    refused: int
    failed: int
    seconds: float
    p50: float
    p99: float
    early: dict[str, float]
    late: dict[str, float]

    def problems(self) -> list[str]:
        """Why it has not gone well; empty where it has."""
        found = []
        if not self.answered or self.failed:
            found.append(f"{self.answered} requests were answered and {self.failed} failed")
        if self.late.get("GPU, allocated", 0) > self.early.get("GPU, allocated", 0):
            found.append("memory that the GPU has allocated grows")
        for kind, early in self.early.items():
            if self.late[kind] > (1 + _ALLOWED_GROWTH) * early + _ALLOWED_BYTES:
                found.append(f"memory grows: {kind} from {early / 1e6:.0f} to {self.late[kind] / 1e6:.0f} MB")
        return found

    def summary(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "problems": self.problems()}


def soak(model: BenchModel, side: Side, *, callers: int, requests: int) -> Soak:
    """Serve a model and have callers send requests of all kinds, each the next one when it has its answer.

    Args:
        model: what is served.
        side: where it runs.
        callers: at the same time.
        requests: of each caller.
    """
    with serving(model, side) as server:
        began = time.monotonic()
        first = _send_all(server.port, callers, min(_EARLY, requests))
        early = _memory(server.port)
        outcomes = first + _send_all(server.port, callers, requests - min(_EARLY, requests))
        seconds = time.monotonic() - began
        late = _memory(server.port)
    latencies = [latency for status, latency in outcomes if status == 200]
    refused = sum(status in _REFUSED for status, _ in outcomes)
    p50, p99 = np.percentile(latencies, (50, 99)).tolist() if latencies else (float("nan"), float("nan"))
    failed = len(outcomes) - len(latencies) - refused
    return Soak(len(latencies), refused, failed, seconds, p50, p99, early, late)


def _send_all(port: int, callers: int, requests: int) -> list[tuple[int, float]]:
    """Status and latency of every request; status 0 where the connection broke."""
    outcomes: list[tuple[int, float]] = []
    threads = [threading.Thread(target=_send, args=(port, seed, requests, outcomes)) for seed in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


def _send(port: int, seed: int, requests: int, outcomes: list[tuple[int, float]]) -> None:
    mix = Mix(seed)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    for _ in range(requests):
        call = mix.draw()
        began = time.perf_counter()
        try:
            connection.request("POST", f"/recognize{call.query}", call.body, {"Content-Type": call.content_type})
            answer = connection.getresponse()
            answer.read()
            status = answer.status
        except (OSError, http.client.HTTPException):
            status = 0
            connection.close()  # the next request opens another one
        outcomes.append((status, time.perf_counter() - began))
    connection.close()


def _memory(port: int) -> dict[str, float]:
    """Bytes by kind, as the server's metrics have them."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
    finally:
        connection.close()
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(values[series]) for series, name in _MEMORY.items() if series in values}
