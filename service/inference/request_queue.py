"""The queue between the event loop and the worker thread, limited in clips, audio seconds and bytes.

The worker chooses a batch from all waiting clips when it is free, which takes microseconds. A batch chosen earlier
would miss the clips that arrive while the model runs, and each of them would wait for one more run.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from service.errors import ServiceError
from service.inference.backend import BatchLimits
from service.results import Clip, ClipOutput, Timings

_BYTES_PER_SECOND = 48_000 * 4
"""Clips wait as float32 at their original rate. Above 48 kHz (some files have 768) the bytes limit the queue."""

_DECAY = 0.9
_MIN_RETRY_AFTER, _MAX_RETRY_AFTER = 1.0, 60.0

ClipAnswer = tuple[ClipOutput, Timings]
"""The output of the model for a clip, and the seconds of the stages of the engine."""


@dataclass(eq=False, slots=True)
class Entry:
    """One accepted clip and the caller that waits for it.

    Only the event loop uses the future; the worker thread only reads `clip`, `seconds`, `enqueued`, `deadline` and
    `retried`. The loop sets `clip` to None when no caller waits any more. This frees the audio, and the worker skips
    the entry.

    Attributes:
        clip: the audio; None once the caller has its answer or error, or was cancelled.
        seconds: duration of the audio.
        enqueued: when it was accepted, a time of `time.monotonic`.
        deadline: the latest time of an answer, on the same clock.
        future: where the caller waits.
        retried: whether a backend broke on a batch with this clip. The clip then runs once more, alone.
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
        """The audio; None if the caller was cancelled or its deadline has passed at `now` (any thread)."""
        return self.clip if now < self.deadline else None

    def answer(self, output: ClipOutput, timings: Timings) -> bool:
        """Give the caller its answer (loop thread); False if it no longer waits."""
        if self.future.done():
            return False
        self.future.set_result((output, timings))
        return True

    def fail(self, error: ServiceError) -> None:
        """Give the caller an error if it still waits (loop thread)."""
        if not self.future.done():
            self.future.set_exception(error)


def select(waiting: Iterable[Entry], limits: BatchLimits, now: float) -> tuple[list[Entry], list[Entry]]:
    """Choose the next batch strictly in the order of `waiting`, so that no clip is overtaken by one that fits better.

    The first wanted clip is always chosen, even if it alone is longer than `limits.seconds`. A clip of a failed batch
    is retried alone, to find the cause without failing other clips. The backend sorts by length if it pads.

    Args:
        waiting: entries in order of arrival; read only as far as needed.
        limits: of one batch.
        now: a time of `time.monotonic`.

    Returns:
        The batch, and the entries passed over because their callers no longer wait. Together they are the beginning of
        `waiting`. The batch is empty only if no entry is wanted.
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
    """First in, first out, except that short clips may overtake long ones, which are larger than a batch.

    After a long clip, clips that fit into a batch go first, until they have overtaken long ones for as many seconds of
    audio as that clip had. So a short clip waits for one long one only, as long as short clips need no more than half
    of the time; and a long clip waits at most for what came before it, and once more for as much as long clips took.

    `take` is for the worker thread, all other methods are for the event loop.

    The lock is held for microseconds only.

    Args:
        max_clips: how many clips may wait.
        max_seconds: how many audio seconds may wait; also limits their bytes, to those of as many seconds at 48 kHz.
    """

    def __init__(self, max_clips: int, max_seconds: float) -> None:
        self._max_clips = max_clips
        self._max_seconds = max_seconds
        self._max_bytes = max_seconds * _BYTES_PER_SECOND
        self._entries: OrderedDict[Entry, None] = OrderedDict()  # removes any entry in constant time
        self._seconds = 0.0
        self._bytes = 0
        self._closed = False
        self._overtaking = 0.0  # seconds of audio that may still overtake long clips
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
        """Whether every clip would be refused now."""
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

        An empty queue accepts every clip; otherwise a clip larger than the limits would always be refused.
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
        """Insert `entries`, which were taken and not answered, before all others and in their order.

        No limit applies, since they were accepted before.
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
        """How many waiting entries came before that of `clip`, and their audio seconds; None if it does not wait."""
        seconds = 0.0
        with self._changed:
            for place, entry in enumerate(self._entries):
                if entry.clip is clip:
                    return place, seconds
                seconds += entry.seconds
        return None

    def take(self, limits: BatchLimits) -> list[Entry] | None:
        """Wait for clips and remove the next batch; None once the queue is closed.

        Entries whose callers no longer wait are removed as well.
        """
        with self._changed:
            while not self._closed:
                batch = self._next_batch(limits)
                if batch:
                    return batch
                self._changed.wait()
            return None

    def close(self) -> None:
        """Drop all entries, refuse new ones, and let `take` return None."""
        with self._changed:
            self._closed = True
            self._entries.clear()
            self._seconds = 0.0
            self._bytes = 0
            self._changed.notify_all()

    def _next_batch(self, limits: BatchLimits) -> list[Entry]:
        now = time.monotonic()
        first = next(iter(self._entries), None)
        batch, dropped = select(self._short(limits) if self._overtaking > 0 else self._entries, limits, now)
        if not batch:
            batch, dropped = select(self._entries, limits, now)
        for entry in (*batch, *dropped):
            self._remove(entry)
        if batch and batch[0].seconds > limits.seconds:
            self._overtaking = batch[0].seconds
        elif first in self._entries:
            self._overtaking -= sum(entry.seconds for entry in batch)
        return batch

    def _short(self, limits: BatchLimits) -> Iterator[Entry]:
        return (entry for entry in self._entries if entry.seconds <= limits.seconds or entry.retried)

    def _add(self, entry: Entry) -> None:
        self._entries[entry] = None
        self._seconds += entry.seconds
        self._bytes += entry.size

    def _remove(self, entry: Entry) -> None:
        if entry in self._entries:
            del self._entries[entry]
            self._bytes -= entry.size
            # Rounding errors of the sum add up; an empty queue resets them.
            self._seconds = self._seconds - entry.seconds if self._entries else 0.0


class Throughput:
    """Audio seconds that the worker processes in a second, over about ten runs; long runs weigh more than short ones.

    From it follow `Retry-After` and the expected wait of a request.
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
        return min(max(self.expected(queued) or 0.0, _MIN_RETRY_AFTER), _MAX_RETRY_AFTER)
