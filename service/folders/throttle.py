"""How many calls to a server are under way: fewer when it refuses, then slowly more again.

Waiting as long as a refusal says is not enough: callers who are too many would be refused again and again, and the
server would be idle while all of them wait.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_GROWTH_SECONDS = 30.0
"""After as long without a refusal one more call is tried."""


@dataclass(slots=True)
class Turn:
    """A call that is under way; `refused` is for the caller to set where the server takes others but not this one."""

    refused: bool = False


class Throttle:
    """Lets threads begin calls."""

    def __init__(self) -> None:
        self._limit = math.inf
        self._changed_at = time.monotonic()
        self._under_way = 0
        self._changed = threading.Condition()

    @contextmanager
    def turn(self) -> Iterator[Turn]:
        """Around a call; waits until one more may be under way."""
        with self._changed:
            self._changed.wait_for(lambda: self._under_way < self._limit)
            self._under_way += 1
        turn = Turn()
        try:
            yield turn
        finally:
            with self._changed:
                self._under_way -= 1
                self._adapt(turn)
                self._changed.notify_all()

    @property
    def alone(self) -> bool:
        """Within a turn: whether no other call is under way."""
        return self._under_way == 1

    def _adapt(self, turn: Turn) -> None:
        now = time.monotonic()
        if turn.refused:
            self._limit = max(1, self._under_way)  # those that are left
            self._changed_at = now
        elif now - self._changed_at > _GROWTH_SECONDS:
            self._limit += 1
            self._changed_at = now
