"""Which waiting clips make the next batch."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field

from service.errors import ServiceError
from service.inference.backend import BatchLimits
from service.results import Clip, ClipOutput, Timings

Answer = tuple[ClipOutput, Timings]


@dataclass(eq=False, slots=True)
class Entry:
    """One accepted clip and the caller that waits for it.

    The event loop makes an entry and alone touches its future. The worker thread only reads `clip`, `seconds`,
    `enqueued`, `deadline` and `suspect`; the loop takes `clip` away when nobody wants the answer any more, which both
    lets go of the audio and tells the worker to skip the entry.

    Attributes:
        clip: the audio, None once the caller has its answer, its error, or has gone.
        seconds: duration of the audio.
        enqueued: when it was accepted, a time of `time.monotonic`.
        deadline: when the answer is of no use any more, on the same clock.
        future: where the caller waits.
        suspect: whether a backend broke on a batch with this clip in it; set before the clip waits once more.
        size: bytes of the audio.
    """

    clip: Clip | None
    seconds: float
    enqueued: float
    deadline: float
    future: asyncio.Future[Answer]
    suspect: bool = False
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

    The first wanted clip is always chosen, even if it alone is longer than `limits.seconds`. A suspect is always alone,
    so that it can take nobody else with it and its guilt or innocence shows. Sorting by length is
    left to the backend, which knows whether it pads.

    Args:
        waiting: entries by arrival; read only as far as needed.
        limits: what one batch may hold.
        now: a time of `time.monotonic`.

    Returns:
        The batch, and the entries met on the way that nobody wants any more. Together they are the beginning of
        `waiting`. The batch is empty only if none is wanted.
    """
    batch: list[Entry] = []
    dropped: list[Entry] = []
    seconds = 0.0
    for entry in waiting:
        if entry.wanted(now) is None:
            dropped.append(entry)
            continue
        if batch and (entry.suspect or len(batch) >= limits.clips or seconds + entry.seconds > limits.seconds):
            break
        batch.append(entry)
        seconds += entry.seconds
        if entry.suspect:
            break
    return batch, dropped
