"""How many requests with granularity segment are worked on at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from service.errors import QueueFull
from service.observability.metrics import Metrics

_RETRY_AFTER = 10.0


class SegmentPermits:
    """Bounds requests that take as long as their recordings, so that short ones find permits and memory.

    Args:
        limit: how many there may be.
        metrics: where to count.
    """

    def __init__(self, limit: int, metrics: Metrics) -> None:
        self._limit = limit
        self._taken = 0
        self._metrics = metrics
        metrics.segment_requests_limit.set(limit)

    @contextmanager
    def take(self) -> Iterator[None]:
        """Take a permit; it is given back on exit.

        Raises:
            QueueFull: if all are out.
        """
        if self._taken >= self._limit:
            self._metrics.requests_rejected.labels(QueueFull.code).inc()
            detail = (
                f"{self._limit} requests with granularity=segment are being worked on, as many as the service takes."
            )
            raise QueueFull(detail, _RETRY_AFTER)
        self._taken += 1
        self._metrics.segment_requests.inc()
        try:
            yield
        finally:
            self._taken -= 1
            self._metrics.segment_requests.dec()
