"""How much the engine takes on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """How much the engine takes on, and how patient it is; times in seconds.

    The size of a batch is the backend's to say (`service.inference.backend.BatchLimits`).

    Attributes:
        max_requests: permits, that is requests between their first byte and their answer.
        max_streams: permits of streams, which are others.
        max_queue_requests: clips that may wait for the worker.
        max_queue_seconds: audio seconds that may wait for the worker.
        restart_min: pause before a dead worker's first restart; it doubles with every death in a row.
        restart_max: longest such pause.
        max_failed_loads: loads that may fail in a row, before nobody believes any more that another one could help.
        stuck_after: age of a run of the model at which the worker counts as stuck.
        stop_grace: how long draining waits for the worker thread when its own time is over.
    """

    max_requests: int = 64
    max_streams: int = 64
    max_queue_requests: int = 256
    max_queue_seconds: float = 1800.0
    restart_min: float = 0.1
    restart_max: float = 30.0
    max_failed_loads: int = 6
    stuck_after: float = 60.0
    stop_grace: float = 1.0
