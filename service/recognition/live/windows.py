"""The windows of a stream that are due, computed from numbers of samples."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WindowRange:
    """The samples from `first` up to `last` of a window; `skipped` windows were skipped before it."""

    first: int
    last: int
    skipped: int


class WindowCounter:
    """The windows of one stream: window k begins at sample `k * hop` and is `length` samples long.

    At the end of the stream, one shorter window covers the remaining samples if they are enough.

    Args:
        length: samples of a window.
        hop: samples from the beginning of one to that of the next, at most `length`.
        shortest: samples that the last window must have.
        skip: whether to skip all windows that are due but the latest.
    """

    def __init__(self, length: int, hop: int, *, shortest: int, skip: bool) -> None:
        if not 0 < hop <= length:
            raise ValueError("windows follow one another without gaps")
        self._length = length
        self._hop = hop
        self._shortest = shortest
        self._skip = skip
        self._total = 0
        self._next = 0
        self._ended = False

    @property
    def due(self) -> bool:
        """Whether a window is due."""
        return self._next < self._complete or self._remainder

    @property
    def needed(self) -> int:
        """The first sample that the following windows need."""
        return (max(self._next, self._complete - 1) if self._skip else self._next) * self._hop

    def extend(self, total: int) -> bool:
        """Set the number of samples received so far; returns whether another whole window is due now."""
        before = self._complete
        self._total = total
        return self._complete > before

    def end(self) -> None:
        """End the stream."""
        self._ended = True

    def take(self) -> WindowRange:
        """Remove and return the next window, which must be due."""
        if self._next < self._complete:
            index = self._complete - 1 if self._skip else self._next
            window = WindowRange(index * self._hop, index * self._hop + self._length, index - self._next)
        else:
            index = self._complete
            window = WindowRange(index * self._hop, self._total, 0)
        self._next = index + 1
        return window

    @property
    def _complete(self) -> int:
        """How many whole windows there are so far."""
        return 0 if self._total < self._length else (self._total - self._length) // self._hop + 1

    @property
    def _remainder(self) -> bool:
        """Whether the shorter last window is due."""
        complete = self._complete
        covered = (complete - 1) * self._hop + self._length if complete else 0
        begin = complete * self._hop
        return (
            self._ended and self._next == complete and self._total > covered and self._total - begin >= self._shortest
        )
