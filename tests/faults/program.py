"""The real command `serve` with a backend that fails when a clip contains a command to fail.

    python -m tests.faults.program serve --port 0

Only the function that opens the model is replaced, by one that wraps the backend. The command is the first sample of a
clip, which may be far outside of full scale in a 32-bit float WAV. Environment variables: `FAULTS_METRICS` names the
file to which the metrics are written at the end of the process; `FAULTS_FILE_SIZE` is the largest size of a file in
bytes; while the file that `FAULTS_GATE` names exists, no model is loaded.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest

from service import cli
from service.errors import BackendBroken
from service.inference.backend import Backend, BatchLimits
from service.inference.backends import select
from service.observability.metrics import Metrics
from service.results import BatchOutput, Clip, ModelInfo
from tests.inference.fake_backend import BREAK, FAIL, HOLD, KILL, OUT_OF_MEMORY

METRICS_FILE = "FAULTS_METRICS"
FILE_SIZE = "FAULTS_FILE_SIZE"
GATE = "FAULTS_GATE"

FAIL_ALWAYS = 1006.0
"""After this clip every run of this backend fails, as after some GPU errors."""

FAIL_RELOADS = 1007.0
"""As `FAIL_ALWAYS`; in addition no other backend can be loaded in this process."""


class FaultyBackend:
    """A `service.inference.backend.Backend` that runs another one, and fails on command."""

    reloads_fail = False
    """Whether every further load fails."""

    def __init__(self, backend: Backend) -> None:
        if FaultyBackend.reloads_fail:
            raise RuntimeError("permanent error of this process")
        self._backend = backend
        self._failing = False

    @property
    def info(self) -> ModelInfo:
        return self._backend.info

    @property
    def limits(self) -> BatchLimits:
        return self._backend.limits

    def warm_up(self) -> float | None:
        return self._backend.warm_up()

    def run(self, clips: Sequence[Clip], cancellation: Future[None] | None = None) -> BatchOutput:
        for clip in clips:
            self._apply(float(clip.samples[0]), float(clip.samples[1]))
        if self._failing:
            raise RuntimeError("permanent error of this backend")
        return self._backend.run(clips, cancellation)

    def _apply(self, command: float, argument: float) -> None:
        if command == FAIL:
            raise ValueError("failure requested by the clip")
        if command == OUT_OF_MEMORY:
            raise MemoryError
        if command == KILL:
            raise SystemExit
        if command == BREAK:
            raise BackendBroken("failure requested by the clip")
        if command == HOLD:
            time.sleep(argument)
        self._failing = self._failing or command in (FAIL_ALWAYS, FAIL_RELOADS)
        FaultyBackend.reloads_fail = FaultyBackend.reloads_fail or command == FAIL_RELOADS

    def memory(self) -> dict[str, int]:
        return self._backend.memory()

    def close(self) -> None:
        self._backend.close()


def with_faults(open_backend: Callable[..., Backend]) -> Callable[..., Backend]:
    """Wrap the function that opens a backend."""
    gate = Path(os.environ[GATE])

    def opened(*args: Any, **options: Any) -> Backend:
        while gate.exists():
            time.sleep(0.01)
        return FaultyBackend(open_backend(*args, **options))

    return opened


def main() -> int:
    """Run the command line of the service."""
    if size := os.environ.get(FILE_SIZE):
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(size), int(size)))
    created: list[Metrics] = []
    init = Metrics.__init__

    def recorded(self: Metrics, registry: CollectorRegistry) -> None:
        init(self, registry)
        created.append(self)

    Metrics.__init__ = recorded  # type: ignore[method-assign]  # keeps the metrics for the end of the process
    select.open_backend = with_faults(select.open_backend)
    try:
        return cli.main()
    finally:
        if path := os.environ.get(METRICS_FILE):
            Path(path).write_bytes(generate_latest(created[-1].registry))


if __name__ == "__main__":
    sys.exit(main())
