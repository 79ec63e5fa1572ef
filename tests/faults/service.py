"""One real server as a process, seen from outside: what it counts, how it says it is, and what it holds on to."""

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

PATIENCE = 60.0
"""Seconds after which what a test waits for does not come any more."""

DECODE_THREADS = 2
"""As by default."""

LISTENING = 3
"""Sockets of a server that nobody is connected to: the one that it listens on, and the loop's own pair."""

PROGRAM = (sys.executable, "-m", "tests.faults.program", "serve", "--answer-cache-bytes", "0")


@dataclass(frozen=True, slots=True)
class Service:
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
        """What it counts; after its end what it had counted."""
        if self.process.poll() is None:
            with connect(self.url) as client:
                return MetricsScrape.parse(client.get("/metrics").text)
        return MetricsScrape.parse(self.last_metrics.read_text(encoding="utf-8"))

    def idle(self) -> MetricsScrape:
        """What it counts when nothing is being worked on any more."""
        until(lambda: all(self.metrics()[name] == 0 for name in ("ser_requests_in_flight", "ser_queue_depth")))
        return self.metrics()

    @contextmanager
    def loading_held_back(self) -> Iterator[None]:
        """No model is loaded within."""
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
        """Have it start all the threads and processes that it keeps for later, and say what it holds then."""
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
        until(lambda: self.resources().files["socket"] <= LISTENING)
        return self.resources()

    def resources(self) -> ProcessResources:
        """What it holds now."""
        return process_resources(self.process.pid)

    def back_to(self, before: ProcessResources) -> ProcessResources:
        """What it holds as soon as that is no more than before; what it still holds when that does not come."""

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
) -> Iterator[Service]:
    """A server with the misbehaving backend.

    Args:
        scratch: where its log goes, and its last metrics.
        flags: as of `serve`.
        environment: more variables.
        wrapper: a command that runs the rest of its arguments.
    """
    log, last_metrics, gate = scratch / "log", scratch / "metrics", scratch / "gate"
    variables = {**os.environ, METRICS_FILE: str(last_metrics), GATE: str(gate), **(environment or {})}
    port = () if "--port" in flags else ("--port", "0")
    began = time.monotonic()
    # Into a file: nobody reads while the server runs, and a full pipe would stop it.
    with (
        log.open("a") as errors,
        serving(*port, *flags, command=[*wrapper, *PROGRAM], stderr=errors, env=variables) as (process, url),
    ):
        yield Service(process, url, log, last_metrics, gate, time.monotonic() - began)


@dataclass
class HealthWatch:
    """Asks `/livez` and `/readyz` all the time, and keeps what they said.

    Attributes:
        live, ready: statuses in their order, repetitions left out; 0 where nobody listened.
        slowest: seconds that an answer has taken at most.
    """

    service: Service
    live: list[int] = field(default_factory=list)
    ready: list[int] = field(default_factory=list)
    slowest: float = 0.0
    _over: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        end = time.monotonic() + PATIENCE
        while not self.ready and time.monotonic() < end:  # what comes next must not come before the first answer
            time.sleep(0.01)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def _watch(self) -> None:
        with connect(self.service.url) as client:
            over = False
            while not over:  # and a last look
                over = self._over.wait(0.02)
                for said, probe in ((self.live, "/livez"), (self.ready, "/readyz")):
                    began = time.monotonic()
                    try:
                        status = client.get(probe).status_code
                    except httpx.TransportError:
                        status = 0
                    else:
                        self.slowest = max(self.slowest, time.monotonic() - began)
                    if said[-1:] != [status]:
                        said.append(status)


def connect(url: str) -> httpx.Client:
    """A client whose answers come from the model, also where the service keeps some.

    It does not load certificates, which would take longer than its requests.
    """
    return httpx.Client(base_url=url, timeout=PATIENCE, verify=False, headers={"Cache-Control": "no-cache"})


def texts(statuses: Counter[int]) -> dict[str, int]:
    """The same as metrics have it."""
    return {str(status): count for status, count in statuses.items() if count}


def until(condition: Callable[[], bool], *, fail: bool = True, pause: float = 0.02) -> None:
    """Wait until `condition` holds."""
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            assert not fail, "what was waited for has not come"
            return
        time.sleep(pause)
