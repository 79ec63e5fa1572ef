"""Rate limits per caller."""

from __future__ import annotations

import math
from collections.abc import Mapping

_MAX_CALLERS = 10_000
"""Callers that are remembered; beyond that, the least recently seen are forgotten and start with a full quota."""


class RateLimit:
    """Limits the average rate and the burst of each caller with the generic cell rate algorithm.

    The state is one entry per caller in a bounded map; a check takes some microseconds and does not block, so it may
    run on the event loop. Each process has its own map: several processes together allow as many times the rate.

    Args:
        per_minute: average requests per minute of one caller.
        burst: requests that it may send at once.
    """

    def __init__(self, per_minute: int, burst: int) -> None:
        # Imported here, because most services have no limit and the import takes time.
        from throttled import MemoryStore, RateLimiterType, Throttled, per_min

        self._throttle = Throttled(
            using=RateLimiterType.GCRA.value,
            quota=per_min(per_minute, burst=burst),
            store=MemoryStore(options={"MAX_SIZE": _MAX_CALLERS}),
        )
        self._policy = f'"requests";q={burst};w={math.ceil(60 * burst / per_minute)}'

    def take(self, caller: str) -> tuple[float | None, Mapping[str, str]]:
        """Count one request of `caller` unless it exceeds the limit.

        Returns:
            None if the request is allowed, otherwise the seconds after which one will be; and the response headers of
            draft-ietf-httpapi-ratelimit-headers: a quota of q requests in w seconds, of which r remain, and the t
            seconds until all of them do.
        """
        result = self._throttle.limit(caller)
        state = result.state
        headers = {
            "RateLimit-Policy": self._policy,
            "RateLimit": f'"requests";r={state.remaining};t={math.ceil(state.reset_after)}',
        }
        return state.retry_after if result.limited else None, headers
