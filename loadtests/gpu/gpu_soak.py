"""A server under mixed requests for a long time: whether requests fail, and whether its memory grows."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

from loadtests.bench.bench_models import BenchModel
from loadtests.bench.implementations import Implementation
from loadtests.bench.processes import serving
from loadtests.capacity.load_step import LoadStep
from loadtests.common.load_generator import LoadGenerator, Target
from loadtests.common.metrics_scrape import MetricsScrape, scrape
from loadtests.common.subprocess_worker import SubprocessWorker

_FIRST_REQUESTS = 10
"""Requests of each caller before memory is measured for the first time."""

_ALLOWED_GROWTH = 0.1
_ALLOWED_BYTES = 1e8
"""Memory may grow by this share and these bytes, since allocators reuse memory instead of releasing it."""


@dataclass(frozen=True, slots=True)
class GpuSoakResult:
    """Requests and memory of one run.

    Attributes:
        load: what became of the requests.
        early: bytes of memory by kind, after the first requests of every caller.
        late: the same at the end.
    """

    load: LoadStep
    early: dict[str, float]
    late: dict[str, float]

    def problems(self) -> list[str]:
        """What has failed; empty if nothing has."""
        found = []
        if not self.load.answered or self.load.failed:
            found.append(f"{self.load.answered} requests were answered and {self.load.failed} failed")
        if self.late.get("GPU, allocated", 0) > self.early.get("GPU, allocated", 0):
            found.append("memory that the GPU has allocated grows")
        for kind, early in self.early.items():
            late = self.late.get(kind, 0)
            if late > (1 + _ALLOWED_GROWTH) * early + _ALLOWED_BYTES:
                found.append(f"memory grows: {kind} from {early / 1e6:.0f} to {late / 1e6:.0f} MB")
        return found

    def summary(self) -> dict[str, Any]:
        """Plain values for the report."""
        return {**asdict(self.load), "early": self.early, "late": self.late, "problems": self.problems()}


def soak(model: BenchModel, implementation: Implementation, *, callers: int, requests: int) -> GpuSoakResult:
    """Serve a model, and have callers in a closed loop send requests of the traffic mix.

    Args:
        model: the model that is served.
        implementation: device and precision.
        callers: number of callers at the same time.
        requests: number of requests per caller.
    """
    with serving(model, implementation) as server, SubprocessWorker(LoadGenerator) as generator:
        target = Target(server.url)
        first = min(_FIRST_REQUESTS, requests)
        began = time.monotonic()
        responses = generator.call("callers_send", target, callers, callers * first)
        early = memory(scrape(server.url))
        responses += generator.call("callers_send", target, callers, callers * (requests - first))
        seconds = time.monotonic() - began
        late = memory(scrape(server.url))
    return GpuSoakResult(LoadStep.of(f"{callers} callers", responses, seconds), early, late)


def memory(metrics: MetricsScrape) -> dict[str, float]:
    """Bytes by kind: those of the GPU, where the model runs on one, and the resident memory of the server."""
    by_kind = metrics.by("kind", "ser_gpu_memory_bytes")
    gpu = {f"GPU, {kind}": float(by_kind[kind]) for kind in ("allocated", "reserved") if kind in by_kind}
    return {**gpu, "resident": metrics["process_resident_memory_bytes"]}
