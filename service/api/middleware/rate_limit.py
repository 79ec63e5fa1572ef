"""Rate limits per caller."""

from __future__ import annotations

import math
from collections.abc import Mapping
from ipaddress import IPv6Address, IPv6Network, ip_address

from starlette.types import Scope

_MAX_CALLERS = 10_000
"""Callers that are remembered; beyond that, the least recently seen are forgotten and start with a full quota."""

_LONGEST_ADDRESS = 64
_NETWORK_BITS = 64


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


def client_network(scope: Scope) -> str:
    """The client's IPv4 address, or the /64 network of its IPv6 address, since every IPv6 host has many addresses."""
    host: str = (scope.get("client") or ("local",))[0]  # a Unix domain socket has no address
    try:
        address = ip_address(host)
    except ValueError:  # a trusted proxy may send any text
        return host[:_LONGEST_ADDRESS]
    if not isinstance(address, IPv6Address):
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(IPv6Network((int(address), _NETWORK_BITS), strict=False))
