"""The structure that the event loop and the worker thread share: clips that wait, bounded three ways.

The worker takes a batch the moment it is free, from all that waits then. A batch closed any earlier would miss the
clips that arrive while the model runs, and each of them would wait for one more run; and the worker would depend on
a busy event loop for its next batch. Choosing takes microseconds, so doing it ahead gains nothing.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from service.errors import ServiceError
from service.inference.backend import BatchLimits
from service.results import Clip, ClipOutput, Timings

_BYTES_PER_SECOND = 48_000 * 4
"""Clips wait in float32 at the rate they came in. Above 48 kHz (some files have 768) a second counts for more."""

_DECAY = 0.9
_SHORTEST, _LONGEST = 1.0, 60.0

ClipAnswer = tuple[ClipOutput, Timings]
"""What the model found in a clip, and how long the stages of the engine took."""


@dataclass(eq=False, slots=True)
class Entry:
    """One accepted clip and the caller that waits for it.

    Only the event loop touches the future. The worker thread only reads `clip`, `seconds`, `enqueued`, `deadline` and
    `retried`. The loop sets `clip` to None when nobody waits for the answer any more, which frees the audio and tells
    the worker to skip the entry.

    Attributes:
        clip: the audio, None once the caller has its answer, its error, or has gone.
        seconds: duration of the audio.
        enqueued: when it was accepted, a time of `time.monotonic`.
        deadline: when the answer is of no use any more, on the same clock.
        future: where the caller waits.
        retried: whether a backend broke on a batch with this clip in it. The clip then runs once more, alone.
        size: bytes of the audio.
    """

    clip: Clip | None
    seconds: float
    enqueued: float
    deadline: float
    future: asyncio.Future[ClipAnswer]
    retried: bool = False
    size: int = field(init=False)

    def __post_init__(self) -> None:
        self.size = self.clip.samples.nbytes if self.clip is not None else 0

    def wanted(self, now: float) -> Clip | None:
        """The audio, or None where the caller has gone or its deadline has passed at `now` (any thread)."""
        return self.clip if now < self.deadline else None

    def answer(self, output: ClipOutput, timings: Timings) -> bool:
        """Give the caller its answer (loop thread); False if it does not wait any more."""
        if self.future.done():
            return False
        self.future.set_result((output, timings))
        return True

    def fail(self, error: ServiceError) -> bool:
        """Give the caller an error (loop thread); False if it does not wait any more."""
        if self.future.done():
            return False
        self.future.set_exception(error)
        return True


def select(waiting: Iterable[Entry], limits: BatchLimits, now: float) -> tuple[list[Entry], list[Entry]]:
    """Choose the next batch strictly by arrival, so that no clip is ever overtaken, whatever its length.

    The first wanted clip is always chosen, even if it alone is longer than `limits.seconds`. A clip of a failed batch
    is retried alone, to find the cause and to let no other clip fail with it. Sorting by length is left to the backend,
    which knows whether it pads.

    Args:
        waiting: entries by arrival; read only as far as needed.
        limits: what one batch may hold.
        now: a time of `time.monotonic`.

    Returns:
        The batch, and the entries before its last one that nobody wants any more. Together they are the beginning of
        `waiting`. The batch is empty only if none is wanted.
    """
    batch: list[Entry] = []
    dropped: list[Entry] = []
    seconds = 0.0
    for entry in waiting:
        if entry.wanted(now) is None:
            dropped.append(entry)
            continue
        if batch and (entry.retried or len(batch) >= limits.clips or seconds + entry.seconds > limits.seconds):
            break
        batch.append(entry)
        seconds += entry.seconds
        if entry.retried:
            break
    return batch, dropped


class RequestQueue:
    """First in, first out; `take` is for the worker thread, all else for the event loop.

    The lock is held for microseconds only, never while anything waits or runs.

    Args:
        max_clips: how many clips may wait.
        max_seconds: how many audio seconds may wait; bounds their memory as well, to that of as many seconds at 48 kHz.
    """

    def __init__(self, max_clips: int, max_seconds: float) -> None:
        self._max_clips = max_clips
        self._max_seconds = max_seconds
        self._max_bytes = max_seconds * _BYTES_PER_SECOND
        self._entries: OrderedDict[Entry, None] = OrderedDict()  # removes from the middle in constant time
        self._seconds = 0.0
        self._bytes = 0
        self._closed = False
        self._changed = threading.Condition(threading.Lock())

    @property
    def clips(self) -> int:
        """How many clips wait."""
        return len(self._entries)

    @property
    def seconds(self) -> float:
        """Audio seconds that wait."""
        return self._seconds

    @property
    def full(self) -> bool:
        """Whether no clip at all would be accepted now."""
        return (
            len(self._entries) >= self._max_clips
            or self._seconds >= self._max_seconds
            or self._bytes >= self._max_bytes
        )

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def put(self, entry: Entry) -> bool:
        """Append `entry` if there is room for it.

        An empty queue has room for every clip. Otherwise a clip larger than the bounds would be refused every time.
        """
        with self._changed:
            crowded = self._entries and (
                self._seconds + entry.seconds > self._max_seconds or self._bytes + entry.size > self._max_bytes
            )
            if self._closed or crowded or len(self._entries) >= self._max_clips:
                return False
            self._add(entry)
            self._changed.notify()
            return True

    def put_back(self, entries: Sequence[Entry]) -> None:
        """Let `entries`, which were taken and not answered, wait once more, before all others and in their order.

        No limit applies: they had their place before.
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

        Entries that nobody wants any more are removed as well. Their callers do not depend on that: the event loop
        ends every wait at its deadline.
        """
        with self._changed:
            while not self._closed:
                batch = self._next_batch(limits)
                if batch:
                    return batch
                self._changed.wait()
            return None

    def close(self) -> None:
        """Drop all that waits, accept nothing more, and let `take` return None."""
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
            # Sums of floats drift; an empty queue resets them.
            self._seconds = self._seconds - entry.seconds if self._entries else 0.0


class Throughput:
    """Audio seconds that the worker processes in a second, over about ten runs; long runs weigh more than short ones.

    Clients are told by it when to come back, or how long they will wait.
    """

    def __init__(self) -> None:
        self._audio = 0.0
        self._wall = 0.0

    def observe(self, audio: float, wall: float) -> None:
        """Count a run that took `wall` seconds for `audio` seconds of audio."""
        self._audio = _DECAY * self._audio + audio
        self._wall = _DECAY * self._wall + wall

    def expected(self, queued: float) -> float | None:
        """Seconds until `queued` seconds of audio will be done; None before the first run."""
        return queued * self._wall / self._audio if self._audio else None

    def retry_after(self, queued: float) -> float:
        """As `expected`, but between 1 and 60; 1 before the first run."""
        return min(max(self.expected(queued) or 0.0, _SHORTEST), _LONGEST)
