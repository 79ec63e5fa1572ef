"""Checks the name under which a request reaches the service."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.problems import refuse
from service.errors import HostForbidden
from service.observability.metrics import Metrics
from service.settings.settings import Settings

UNCHECKED = frozenset({"/livez", "/readyz"})
"""Paths for any name, since the probes of clusters and load balancers use addresses. Their answers are no secrets."""

_PORT = re.compile(r":[0-9]*$")


class HostMiddleware:
    """Refuses requests for other hosts.

    A page of another site can make its name resolve to this machine (DNS rebinding). To the browser, the service then
    belongs to that site, whose scripts may use it; only `Host` tells.

    Args:
        app: the inner application.
        is_allowed: whether a host, in lower case and without port, is allowed.
        metrics: where refusals are counted.
    """

    def __init__(self, app: ASGIApp, *, is_allowed: Callable[[str], bool], metrics: Metrics) -> None:
        self.app = app
        self._is_allowed = is_allowed
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "lifespan" or self._is_served(scope):
            await self.app(scope, receive, send)
            return
        self._metrics.requests_rejected.labels(HostForbidden.code).inc()
        error = HostForbidden("The service is not reached under this name; `allowed_hosts` lists those that it has.")
        await refuse(error, scope, receive, send)

    def _is_served(self, scope: Scope) -> bool:
        host = _PORT.sub("", Headers(scope=scope).get("host", "")).lower().removesuffix(".")
        path = str(scope["path"]).removeprefix(scope.get("root_path", ""))
        # Without a host, a client of HTTP/1.0; browsers always send it.
        return not host or path in UNCHECKED or self._is_allowed(host)


def host_check(settings: Settings) -> Callable[[str], bool] | None:
    """Which hosts are allowed; None if all are."""
    if settings.allowed_hosts:
        return None if "*" in settings.allowed_hosts else _listed(settings.allowed_hosts)
    # No page reaches a Unix domain socket; a proxy in front of it passes any name on.
    return _is_this_machine if settings.is_local and settings.uds is None else None


def _listed(hosts: tuple[str, ...]) -> Callable[[str], bool]:
    names = frozenset(hosts)
    domains = tuple(host[1:] for host in hosts if host.startswith("*."))
    return lambda host: host in names or host.endswith(domains)


def _is_this_machine(host: str) -> bool:
    """Whether this is a name of this machine, or an address, which no other site can have as its name."""
    if host == "localhost" or host.endswith(".localhost") or host == socket.gethostname().lower():
        return True
    try:
        ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True
