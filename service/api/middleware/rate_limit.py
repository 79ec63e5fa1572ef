"""How often one caller may ask."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network, ip_address
from typing import Self

from starlette.types import Scope

from service.settings.settings import Settings

_MAX_CALLERS = 10_000
"""How many callers are remembered; of more, those that have not asked for the longest time begin anew."""

_LONGEST_ADDRESS = 64
_NETWORK_BITS = 64


@dataclass(frozen=True, slots=True)
class Allowance:
    """What one request finds: whether it may go on, or after how many seconds it may, and what the answer says."""

    retry_after: float | None
    headers: Mapping[str, str]


class RateLimit:
    """Lets each caller ask a number of times at once, and again as time goes by (the generic cell rate algorithm).

    One entry of a bounded map is kept for each caller; looking takes some microseconds and waits for nothing, so it is
    safe on the event loop. The map is this process's own: with several processes, each allows as much.

    Args:
        per_minute: requests that one caller may make on average.
        burst: requests that it may make at once.
    """

    def __init__(self, per_minute: int, burst: int) -> None:
        # Most services have no limit, and need not wait for the import.
        from throttled import MemoryStore, RateLimiterType, Throttled, per_min

        self._throttle = Throttled(
            using=RateLimiterType.GCRA.value,
            quota=per_min(per_minute, burst=burst),
            store=MemoryStore(options={"MAX_SIZE": _MAX_CALLERS}),
        )
        self._policy = f'"requests";q={burst};w={math.ceil(60 * burst / per_minute)}'

    @classmethod
    def of(cls, settings: Settings) -> Self | None:
        """The limit in `settings`, None where there is none."""
        return cls(settings.rate_limit, settings.rate_burst) if settings.rate_limit else None

    def take(self, caller: str) -> Allowance:
        """Count one request of `caller`, unless it is one too many.

        The headers are those of draft-ietf-httpapi-ratelimit-headers: a quota of q requests in w seconds, of which r
        are left, and t seconds until all of them are.
        """
        found = self._throttle.limit(caller)
        state = found.state
        headers = {
            "RateLimit-Policy": self._policy,
            "RateLimit": f'"requests";r={state.remaining};t={math.ceil(state.reset_after)}',
        }
        return Allowance(state.retry_after if found.limited else None, headers)


def client_network(scope: Scope) -> str:
    """Where a request comes from: the IPv4 address, or the network of an IPv6 address, of which every host has many."""
    host: str = (scope.get("client") or ("nobody",))[0]  # a socket of the file system has no address
    try:
        address = ip_address(host)
    except ValueError:  # whatever a trusted proxy says
        return host[:_LONGEST_ADDRESS]
    if not isinstance(address, IPv6Address):
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(IPv6Network((int(address), _NETWORK_BITS), strict=False))
