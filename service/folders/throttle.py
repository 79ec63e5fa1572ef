"""How many calls to a server are under way: fewer when it refuses, then slowly more again.

Waiting as long as a refusal says is not enough: callers who are too many would be refused again and again, and the
server would be idle while all of them wait.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_LESS = 0.7
_GROWTH_SECONDS = 30.0
"""After as long without a refusal one more call is tried."""


class Throttle:
    """Lets threads begin calls.

    Args:
        refusals: how many calls the server has refused so far.
    """

    def __init__(self, refusals: Callable[[], int]) -> None:
        self._refusals = refusals
        self._seen = 0
        self._limit = math.inf
        self._changed_at = time.monotonic()
        self._under_way = 0
        self._changed = threading.Condition()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Around a call; waits until one more may be under way."""
        with self._changed:
            self._changed.wait_for(lambda: self._under_way < self._limit)
            self._under_way += 1
        try:
            yield
        finally:
            with self._changed:
                self._adapt()
                self._under_way -= 1
                self._changed.notify_all()

    def _adapt(self) -> None:
        refusals, now = self._refusals(), time.monotonic()
        if refusals > self._seen:
            self._limit = max(1, int(_LESS * self._under_way))
            self._seen, self._changed_at = refusals, now
        elif now - self._changed_at > _GROWTH_SECONDS:
            self._limit += 1
            self._changed_at = now
