"""The one structure that the event loop and the worker thread share: clips that wait, bounded three ways.

The worker takes a batch the moment it is free, from all that waits then. A batch closed any earlier would miss the
clips that arrive while the model runs and make each of them wait for one more run; and the worker would depend on
a busy event loop for its next batch. Choosing it takes microseconds, so there is nothing to win by doing it ahead.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Sequence

from service.inference.backend import BatchLimits
from service.inference.batch import Entry, select
from service.results import Clip

_BYTES_PER_SECOND = 48_000 * 4
"""Clips wait in float32 at the rate they came in. Above 48 kHz, and some files have 768, a second counts for more."""


class RequestQueue:
    """First in, first out; `take` is for the worker thread, all else for the event loop.

    The lock is held for microseconds only, never while anything waits or runs.

    Args:
        max_requests: most entries that may wait.
        max_seconds: most audio seconds that may wait; also bounds their memory, to that of as many seconds at 48 kHz.
    """

    def __init__(self, max_requests: int, max_seconds: float) -> None:
        self._max_requests = max_requests
        self._max_seconds = max_seconds
        self._max_bytes = max_seconds * _BYTES_PER_SECOND
        self._entries: OrderedDict[Entry, None] = OrderedDict()  # removes from the middle in constant time
        self._seconds = 0.0
        self._bytes = 0
        self._closed = False
        self._changed = threading.Condition(threading.Lock())

    @property
    def requests(self) -> int:
        """Entries that wait."""
        return len(self._entries)

    @property
    def seconds(self) -> float:
        """Audio seconds that wait."""
        return self._seconds

    @property
    def full(self) -> bool:
        """Whether no clip at all would be accepted now."""
        return (
            len(self._entries) >= self._max_requests
            or self._seconds >= self._max_seconds
            or self._bytes >= self._max_bytes
        )

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def put(self, entry: Entry) -> bool:
        """Append `entry` if there is room for it.

        An empty queue has room for every clip: one larger than any bound would otherwise be told for ever to come back
        later.
        """
        with self._changed:
            crowded = self._entries and (
                self._seconds + entry.seconds > self._max_seconds or self._bytes + entry.size > self._max_bytes
            )
            if self._closed or crowded or len(self._entries) >= self._max_requests:
                return False
            self._add(entry)
            self._changed.notify()
            return True

    def put_back(self, entries: Sequence[Entry]) -> None:
        """Let `entries`, which were taken and have no end, wait once more, before all others and in their order.

        They had a place once, so no limit holds for them.
        """
        with self._changed:
            if self._closed:
                return
            for entry in reversed(entries):
                self._add(entry)
                self._entries.move_to_end(entry, last=False)
            self._changed.notify()

    def discard(self, entry: Entry) -> None:
        """Remove `entry` if it still waits."""
        with self._changed:
            self._remove(entry)

    def ahead_of(self, clip: Clip) -> tuple[int, float] | None:
        """How many entries wait before that of `clip`, and their audio seconds; None if it does not wait."""
        seconds = 0.0
        with self._changed:
            for place, entry in enumerate(self._entries):
                if entry.clip is clip:
                    return place, seconds
                seconds += entry.seconds
        return None

    def take(self, limits: BatchLimits) -> list[Entry] | None:
        """Wait for clips and remove the next batch; None once the queue is closed.

        Entries that nobody wants any more are removed on the way. Their callers have other means to know it: the
        event loop ends every wait at its deadline.
        """
        with self._changed:
            while not self._closed:
                batch = self._next_batch(limits)
                if batch:
                    return batch
                self._changed.wait()
            return None

    def close(self) -> None:
        """Forget all that waits, take nothing more, and send the worker home."""
        with self._changed:
            self._closed = True
            self._entries.clear()
            self._seconds = 0.0
            self._bytes = 0
            self._changed.notify_all()

    def _next_batch(self, limits: BatchLimits) -> list[Entry]:
        batch, dropped = select(self._entries, limits, time.monotonic())
        for entry in (*batch, *dropped):
            self._remove(entry)
        return batch

    def _add(self, entry: Entry) -> None:
        self._entries[entry] = None
        self._seconds += entry.seconds
        self._bytes += entry.size

    def _remove(self, entry: Entry) -> None:
        if entry in self._entries:
            del self._entries[entry]
            self._bytes -= entry.size
            # Sums of floats drift; an empty queue is the chance to begin anew.
            self._seconds = self._seconds - entry.seconds if self._entries else 0.0
