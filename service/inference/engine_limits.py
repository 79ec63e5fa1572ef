"""The limits of the engine."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """Limits of the queue and of the permits; `service.inference.backend.BatchLimits` limits the size of a batch.

    Attributes:
        max_requests: permits for requests, each held from the first byte to the answer.
        max_recordings: how many of these requests may have granularity segment, which takes as long as the recording.
        max_streams: permits for streams, which need no permit for a request.
        caller_share: of each of these that one caller may hold; see `service.inference.permits`.
        max_queue_clips: clips that may wait for the worker.
        max_queue_seconds: audio seconds that may wait for the worker.
        stuck_after: seconds that one run of the model may always take before the worker counts as stuck. A long clip
            may take longer, as the measured speed says.
    """

    max_requests: int
    max_recordings: int
    max_streams: int
    caller_share: float
    max_queue_clips: int
    max_queue_seconds: float
    stuck_after: float
