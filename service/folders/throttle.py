"""Limits the concurrent calls to a server: fewer after it refuses one, then slowly more again.

It is not enough to wait as long as a refusal says: too many callers would be refused again and again, and the server
would be idle while all of them wait.
"""

from __future__ import annotations

import math
import threading
import time

_GROWTH_SECONDS = 30.0
"""After this time without a refusal the limit grows by one call."""


class Throttle:
    """Limits how many threads call at a time, each in a `with` block; there is no limit before the first refusal."""

    def __init__(self) -> None:
        self._limit = math.inf
        self._changed_at = time.monotonic()
        self._in_progress = 0
        self._changed = threading.Condition()

    def __enter__(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._in_progress < self._limit)
            self._in_progress += 1

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._in_progress -= 1
            if time.monotonic() - self._changed_at > _GROWTH_SECONDS:
                self._set_limit(self._limit + 1)
            self._changed.notify_all()

    def refused(self) -> None:
        """Within a call: lower the limit to the other calls in progress, because the server has refused this one."""
        with self._changed:
            self._set_limit(max(1, self._in_progress - 1))

    @property
    def alone(self) -> bool:
        """Within a call: whether no other call is in progress."""
        return self._in_progress == 1

    def _set_limit(self, limit: float) -> None:
        self._limit = limit
        self._changed_at = time.monotonic()
