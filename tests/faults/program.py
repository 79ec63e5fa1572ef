"""The real command `serve` around a backend that misbehaves when a clip tells it to.

    python -m tests.faults.program serve --port 0

Nothing in the service knows of it: only what opens the model is replaced, by the same with a wrapper. A clip commands
by its first sample, which a 32-bit float WAV may have far outside of full scale. With `FAULTS_METRICS` in the
environment, the metrics at the end of the process are written to that file; with `FAULTS_FILE_SIZE`, no file may
become larger than as many bytes; while the file of `FAULTS_GATE` exists, no model is loaded.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Callable, Sequence
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

STICK = 1006.0
"""From this clip on every run of this backend fails, as after an error of a GPU."""

STICK_FOR_EVER = 1007.0
"""And no other backend can be loaded in this process."""


class Misbehaving:
    """Implements `service.inference.backend.Backend` around another one."""

    ruined = False
    """Whether no backend can be loaded any more."""

    def __init__(self, backend: Backend) -> None:
        if Misbehaving.ruined:
            raise RuntimeError("an error that lasts as long as the process")
        self._backend = backend
        self._stuck = False

    @property
    def info(self) -> ModelInfo:
        return self._backend.info

    @property
    def limits(self) -> BatchLimits:
        return self._backend.limits

    def warm_up(self) -> None:
        self._backend.warm_up()

    def run(self, clips: Sequence[Clip]) -> BatchOutput:
        for clip in clips:
            self._obey(float(clip.samples[0]), float(clip.samples[1]))
        if self._stuck:
            raise RuntimeError("an error that lasts as long as the backend")
        return self._backend.run(clips)

    def _obey(self, command: float, argument: float) -> None:
        if command == FAIL:
            raise ValueError("the clip asked for a failure")
        if command == OUT_OF_MEMORY:
            raise MemoryError
        if command == KILL:
            raise SystemExit
        if command == BREAK:
            raise BackendBroken("the clip asked for it")
        if command == HOLD:
            time.sleep(argument)
        self._stuck = self._stuck or command in (STICK, STICK_FOR_EVER)
        Misbehaving.ruined = Misbehaving.ruined or command == STICK_FOR_EVER

    def memory(self) -> dict[str, int]:
        return self._backend.memory()

    def close(self) -> None:
        self._backend.close()


def misbehaving(open_backend: Callable[..., Backend]) -> Callable[..., Backend]:
    """The same, wrapped."""

    gate = Path(os.environ[GATE])

    def opened(*args: Any, **options: Any) -> Backend:
        while gate.exists():
            time.sleep(0.01)
        return Misbehaving(open_backend(*args, **options))

    return opened


def main() -> int:
    """Run the command."""
    if size := os.environ.get(FILE_SIZE):
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(size), int(size)))
    made: list[Metrics] = []
    init = Metrics.__init__

    def noted(self: Metrics, registry: CollectorRegistry) -> None:
        init(self, registry)
        made.append(self)

    Metrics.__init__ = noted  # type: ignore[method-assign]  # to have the metrics when the server has gone
    select.open_backend = misbehaving(select.open_backend)
    try:
        return cli.main()
    finally:
        if path := os.environ.get(METRICS_FILE):
            Path(path).write_bytes(generate_latest(made[-1].registry))


if __name__ == "__main__":
    sys.exit(main())
