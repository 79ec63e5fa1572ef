"""Decides which failed requests are sent again, and after how long.

A request that the server may have processed is not sent again. A request is sent again if the server refused it (429,
503), if no connection could be opened or, for GET requests, which are idempotent, if the connection was lost.
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
"""Statuses of requests that the server did not process, and that may be sent again."""

_JITTER = 0.25
"""Random share added to a delay, so that clients that were refused together do not return together."""

_MIN_JITTER_SECONDS = 0.1
_MAX_RETRY_AFTER_SECONDS = 86_400.0
_FIRST_BACKOFF_SECONDS = 0.5
_MAX_BACKOFF_SECONDS = 8.0


@dataclass(frozen=True, slots=True)
class Retries:
    """How often a request is sent at most, and within how many seconds.

    A delay that would end after `seconds` is not started. `attempts=1` sends every request once.
    """

    attempts: int = 5
    seconds: float = 60.0

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.seconds < 0:
            raise ValueError("attempts must be at least 1, and seconds not negative")

    @classmethod
    def for_seconds(cls, seconds: float) -> Self:
        """Any number of attempts within `seconds`."""
        return cls(attempts=1_000_000_000, seconds=seconds)


class SharedDelay:
    """The delay that a server asked for, shared by all requests of one client: Retry-After limits the caller.

    Thread-safe.
    """

    def __init__(self) -> None:
        self._until = 0.0
        self._refusal: Problem | None = None
        self._lock = threading.Lock()

    def extend(self, refusal: Problem) -> None:
        """Delay all requests for as long as a refusal asks; never shortens the delay."""
        until = time.monotonic() + (refusal.retry_after or 0.0)
        with self._lock:
            if until > self._until:
                self._until, self._refusal = until, refusal

    def seconds(self, longest: float, request_id: str) -> float:
        """Seconds to wait before a request is sent, jitter included; 0 if no delay is in force.

        Args:
            longest: seconds that this request may wait.
            request_id: the ID of this request, for the problem.

        Raises:
            Problem: the refusal that caused the delay, if the delay is longer than `longest`.
        """
        with self._lock:
            delay, refusal = _with_jitter(self._until - time.monotonic()), self._refusal
        if delay > longest and refusal is not None:
            raise Problem(
                refusal.detail,
                request_id,
                status=refusal.status,
                code=refusal.code,
                title=refusal.title,
                errors=[],
                retry_after=delay,
            )
        return delay

    def before_retry(self, state: RetryCallState) -> float:
        """Seconds from a failed attempt to the next one; tenacity's `wait`."""
        error = state.outcome.exception() if state.outcome is not None else None
        if isinstance(error, Problem) and error.retry_after is not None:
            self.extend(error)
            return _with_jitter(error.retry_after)
        backoff = min(_MAX_BACKOFF_SECONDS, _FIRST_BACKOFF_SECONDS * 2.0 ** min(state.attempt_number - 1, 10))
        return backoff * random.uniform(0.5, 1)  # noqa: S311 - spreads load; not used for security


def is_retryable(error: BaseException, *, idempotent: bool) -> bool:
    """Whether a request that failed with `error` may be sent again.

    Args:
        error: why it failed.
        idempotent: whether the server may process the request twice.
    """
    if isinstance(error, Problem):
        return error.status in REFUSALS
    return isinstance(error, Unreachable) or (idempotent and isinstance(error, Disconnected))


def parse_retry_after(value: str | None) -> float | None:
    """Seconds from now that a Retry-After header names, at most a day; None if it is absent or malformed."""
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdecimal():
        return min(float(text), _MAX_RETRY_AFTER_SECONDS)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    if moment.tzinfo is None:  # "-0000": the time is UTC (RFC 5322, section 3.3)
        moment = moment.replace(tzinfo=UTC)
    return min(max(0.0, (moment - datetime.now(UTC)).total_seconds()), _MAX_RETRY_AFTER_SECONDS)


def _with_jitter(seconds: float) -> float:
    if seconds <= 0:
        return 0.0
    return seconds + random.uniform(0, max(_MIN_JITTER_SECONDS, _JITTER * seconds))  # noqa: S311 - as above
