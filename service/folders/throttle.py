"""Limits the concurrent calls to a server: fewer after it refuses one, then slowly more again.

It is not enough to wait as long as a refusal says: too many callers would be refused again and again, and the server
would be idle while all of them wait.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_GROWTH_SECONDS = 30.0
"""After this time without a refusal the limit grows by one call."""


@dataclass(slots=True)
class ThrottledCall:
    """A call in progress. The caller sets `refused` if the server refuses this call because of its load."""

    refused: bool = False


class Throttle:
    """Limits how many threads call at the same time; without a limit until the first refusal."""

    def __init__(self) -> None:
        self._limit = math.inf
        self._changed_at = time.monotonic()
        self._in_progress = 0
        self._changed = threading.Condition()

    @contextmanager
    def call(self) -> Iterator[ThrottledCall]:
        """Enclose a call; wait first until the limit allows one more."""
        with self._changed:
            self._changed.wait_for(lambda: self._in_progress < self._limit)
            self._in_progress += 1
        call = ThrottledCall()
        try:
            yield call
        finally:
            with self._changed:
                self._in_progress -= 1
                self._adapt(call)
                self._changed.notify_all()

    @property
    def alone(self) -> bool:
        """Within a call: whether no other call is in progress."""
        return self._in_progress == 1

    def _adapt(self, call: ThrottledCall) -> None:
        now = time.monotonic()
        if call.refused:
            self._limit = max(1, self._in_progress)  # the other calls in progress
            self._changed_at = now
        elif now - self._changed_at > _GROWTH_SECONDS:
            self._limit += 1
            self._changed_at = now
