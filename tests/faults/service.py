"""One real server as a process: its metrics, its health, and its open files, threads and child processes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from loadtests.common.metrics_scrape import MetricsScrape
from loadtests.common.process_resources import ProcessResources, process_resources
from service.preprocess.ffmpeg.sandbox import PROCESSES
from tests.api.server.test_server import serving
from tests.audio_samples import encode, speech
from tests.faults.program import GATE, METRICS_FILE

TIMEOUT = 60.0
"""Seconds after which a test stops waiting and fails."""

DECODE_THREADS = 2
"""The default of the setting `decode_threads`."""

IDLE_SOCKETS = 3
"""Sockets of a server without connections: the listening socket, and the pair of the event loop."""

PROGRAM = (sys.executable, "-m", "tests.faults.program", "serve", "--answer-cache-bytes", "0")


@dataclass(frozen=True, slots=True)
class RunningService:
    """A server that is ready."""

    process: subprocess.Popen[str]
    url: str
    log: Path
    last_metrics: Path
    gate: Path
    ready_after: float

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def metrics(self) -> MetricsScrape:
        """The metrics now, or after the end of the process those that it wrote at its end."""
        if self.process.poll() is None:
            with connect(self.url) as client:
                return MetricsScrape.parse(client.get("/metrics").text)
        return MetricsScrape.parse(self.last_metrics.read_text(encoding="utf-8"))

    def idle(self) -> MetricsScrape:
        """The metrics once no request is in flight or in the queue."""
        until(lambda: all(self.metrics()[name] == 0 for name in ("ser_requests_in_flight", "ser_queue_depth")))
        return self.metrics()

    @contextmanager
    def loading_paused(self) -> Iterator[None]:
        """Within this context no model is loaded."""
        self.gate.touch()
        try:
            yield
        finally:
            self.gate.unlink()

    def health(self) -> tuple[int, int]:
        """The statuses of `/livez` and `/readyz`."""
        with connect(self.url) as client:
            return client.get("/livez").status_code, client.get("/readyz").status_code

    def saturate(self) -> ProcessResources:
        """Make the server start all threads and child processes that it keeps; returns its resources then."""
        compressed = encode("mp3", speech(), 16_000)

        def ask() -> None:
            with connect(self.url) as client:
                client.get("/metrics")
                client.post("/recognize", content=compressed, headers={"Content-Type": "audio/mpeg"})

        def saturated() -> bool:
            with ThreadPoolExecutor(16) as pool:
                for each in [pool.submit(ask) for _ in range(16)]:
                    each.result()
            return len(self.resources().children) == min(PROCESSES, DECODE_THREADS)

        until(saturated)
        self._spool()
        return self._idle_resources()

    def _spool(self) -> None:
        with connect(self.url) as client:
            client.post("/recognize", content=bytes(2 << 20), headers={"Content-Type": "audio/wav"})

    def _idle_resources(self) -> ProcessResources:
        until(lambda: self.resources().files["socket"] <= IDLE_SOCKETS)
        return self.resources()

    def resources(self) -> ProcessResources:
        """Its open files, threads and child processes now."""
        return process_resources(self.process.pid)

    def settled_resources(self, before: ProcessResources) -> ProcessResources:
        """Wait until it has no more resources than before; returns its resources then, or after the timeout."""

        def settled() -> bool:
            if self.resources().within(before):
                return True
            self._spool()  # threads that spool uploads end when a later one is spooled
            return False

        until(settled, fail=False, pause=0.5)
        return self.resources()


@contextmanager
def running(
    scratch: Path, *flags: str, environment: Mapping[str, str] | None = None, wrapper: Sequence[str] = ()
) -> Iterator[RunningService]:
    """Run a server with the faulty backend of `tests.faults.program`.

    Args:
        scratch: directory for its log and its last metrics.
        flags: of `serve`.
        environment: additional variables.
        wrapper: a command that runs the rest of its arguments.
    """
    log, last_metrics, gate = scratch / "log", scratch / "metrics", scratch / "gate"
    variables = {**os.environ, METRICS_FILE: str(last_metrics), GATE: str(gate), **(environment or {})}
    port = () if "--port" in flags else ("--port", "0")
    began = time.monotonic()
    # A file, because nothing reads from a pipe while the server runs, and a full pipe would block it.
    with (
        log.open("a") as errors,
        serving(*port, *flags, command=[*wrapper, *PROGRAM], stderr=errors, env=variables) as (process, url),
    ):
        yield RunningService(process, url, log, last_metrics, gate, time.monotonic() - began)


@dataclass
class HealthWatch:
    """Requests `/livez` and `/readyz` again and again, and records the answers.

    Attributes:
        live, ready: statuses in order, without repetitions; 0 if no connection was possible.
        slowest: seconds of the slowest answer.
    """

    service: RunningService
    live: list[int] = field(default_factory=list)
    ready: list[int] = field(default_factory=list)
    slowest: float = 0.0
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        end = time.monotonic() + TIMEOUT
        while not self.ready and time.monotonic() < end:  # the test goes on after the first answer
            time.sleep(0.01)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _watch(self) -> None:
        with connect(self.service.url) as client:
            over = False
            while not over:  # ends with one more request after the test
                over = self._stop.wait(0.02)
                for seen, probe in ((self.live, "/livez"), (self.ready, "/readyz")):
                    began = time.monotonic()
                    try:
                        status = client.get(probe).status_code
                    except httpx.TransportError:
                        status = 0
                    else:
                        self.slowest = max(self.slowest, time.monotonic() - began)
                    if seen[-1:] != [status]:
                        seen.append(status)


def connect(url: str) -> httpx.Client:
    """A client that asks the server not to answer from its cache.

    It does not load certificates, which would take longer than its requests.
    """
    return httpx.Client(base_url=url, timeout=TIMEOUT, verify=False, headers={"Cache-Control": "no-cache"})


def by_status_text(statuses: Counter[int]) -> dict[str, int]:
    """Counts by status as the metrics name them."""
    return {str(status): count for status, count in statuses.items() if count}


def until(condition: Callable[[], bool], *, fail: bool = True, pause: float = 0.02) -> None:
    """Wait until `condition` holds."""
    end = time.monotonic() + TIMEOUT
    while not condition():
        if time.monotonic() > end:
            assert not fail, "timeout"
            return
        time.sleep(pause)
