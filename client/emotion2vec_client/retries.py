"""When a call is made again, and how long everybody waits before that.

Nothing is made again that may have been worked on: only calls that the server refused unread (429, 503), and those for
which no connection came about; calls that change nothing on the server (GET) also after a lost connection.
"""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Self

from tenacity import RetryCallState

from emotion2vec_client.errors import Disconnected, Problem, Unreachable

REFUSALS = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})
"""Statuses of calls that were not taken, and may be made again."""

_JITTER = 0.25
"""Share of a wait that is added by chance, so that callers who were refused together do not come back together."""

_LEAST_JITTER = 0.1
_LONGEST_HOLD = 86_400.0
_FIRST_BACKOFF = 0.5
_LONGEST_BACKOFF = 8.0


@dataclass(frozen=True, slots=True)
class Retries:
    """How often a call is made in all, and in how many seconds from its beginning.

    A wait that would not end within `seconds` is not begun. `attempts=1` makes every call once.
    """

    attempts: int = 5
    seconds: float = 60.0

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.seconds < 0:
            raise ValueError("attempts must be at least 1, and seconds not negative")

    @classmethod
    def for_seconds(cls, seconds: float) -> Self:
        """As often as it takes, within so many seconds."""
        return cls(attempts=1_000_000_000, seconds=seconds)


class Pace:
    """How long all calls of one client hold back: a server that says when to come back means the caller, not the call.

    Threads share it.
    """

    def __init__(self) -> None:
        self._until = 0.0
        self._refusal: Problem | None = None
        self._lock = threading.Lock()

    def hold(self, refusal: Problem) -> None:
        """Make no call before the moment that a refusal names."""
        until = time.monotonic() + (refusal.retry_after or 0.0)
        with self._lock:
            if until > self._until:
                self._until, self._refusal = until, refusal

    def pause(self, longest: float, request_id: str) -> float:
        """Seconds to wait before a call, with some more by chance; 0 while nobody holds back.

        Raises:
            Problem: the refusal, if the call may not wait as long.
        """
        with self._lock:
            pause, refusal = _scattered(self._until - time.monotonic()), self._refusal
        if pause > longest and refusal is not None:
            raise Problem(
                refusal.detail,
                request_id,
                status=refusal.status,
                code=refusal.code,
                title=refusal.title,
                errors=[],
                retry_after=pause,
            )
        return pause

    def wait(self, state: RetryCallState) -> float:
        """Seconds until the next attempt, as tenacity asks for it."""
        error = state.outcome.exception() if state.outcome is not None else None
        if isinstance(error, Problem) and error.retry_after is not None:
            self.hold(error)
            return _scattered(error.retry_after)
        backoff = min(_LONGEST_BACKOFF, _FIRST_BACKOFF * 2.0 ** min(state.attempt_number - 1, 10))
        return backoff * random.uniform(0.5, 1)  # noqa: S311 - spreads load, guards nothing


def may_be_repeated(error: BaseException, *, changes_nothing: bool) -> bool:
    """Whether a call that failed so may be made again."""
    if isinstance(error, Problem):
        return error.status in REFUSALS
    return isinstance(error, Unreachable) or (changes_nothing and isinstance(error, Disconnected))


def seconds_until(retry_after: str | None) -> float | None:
    """What a Retry-After header says, in seconds from now; None where it says nothing that can be understood."""
    if retry_after is None:
        return None
    text = retry_after.strip()
    if text.isascii() and text.isdecimal():
        return min(float(text), _LONGEST_HOLD)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    if moment.tzinfo is None:  # "-0000": the time is UTC, says RFC 5322
        moment = moment.replace(tzinfo=UTC)
    return min(max(0.0, (moment - datetime.now(UTC)).total_seconds()), _LONGEST_HOLD)


def _scattered(seconds: float) -> float:
    if seconds <= 0:
        return 0.0
    return seconds + random.uniform(0, max(_LEAST_JITTER, _JITTER * seconds))  # noqa: S311 - as above
