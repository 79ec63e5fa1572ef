"""API keys and rate limits, checked before a body is read or a permit is taken.

Every path is protected unless `service.api.app` declares otherwise for its route, so new routes and unknown paths are
protected by default.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum, auto

from starlette.datastructures import Headers, MutableHeaders
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.callers import caller_of
from service.api.middleware.api_keys import ApiKeys, presented_key
from service.api.middleware.rate_limit import RateLimit
from service.api.problems import refuse
from service.api.request_context import request_context
from service.errors import KeyInvalid, KeyMissing, RateLimited, ServiceError
from service.observability.metrics import Metrics

_CHALLENGE = 'Bearer realm="emotion2vec-service"'


class Access(Enum):
    """What a route asks of its callers, where keys and rate limits are in force."""

    PUBLIC = auto()
    """Nothing."""
    KEY = auto()
    """A key, without counting against the caller's rate."""
    KEY_AND_RATE = auto()
    """A key, and a request of the caller's rate."""


class AccessMiddleware:
    """Refuses requests without a valid key, and those of callers that exceed their rate.

    Args:
        app: the inner application.
        routes: all routes in the order in which they are matched, each with what it asks of callers.
        keys: None where no key is needed.
        rate: None where there is no limit.
        metrics: where refusals are counted.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        routes: Sequence[tuple[BaseRoute, Access]],
        keys: ApiKeys | None,
        rate: RateLimit | None,
        metrics: Metrics,
    ) -> None:
        self.app = app
        self._routes = routes
        self._keys = keys
        self._rate = rate
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        route, access = (None, Access.PUBLIC) if scope["type"] == "lifespan" else self._route(scope)
        if access is Access.PUBLIC:
            await self.app(scope, receive, send)
            return
        error, headers = self._check(scope, access)
        if error is None:
            await self.app(scope, receive, _with_headers(send, headers))
            return
        self._metrics.requests_rejected.labels(error.code).inc()
        if route is not None:
            scope["route"] = route  # set as the router would: requests are counted and logged by their route
        await refuse(error, scope, receive, send, headers)

    def _route(self, scope: Scope) -> tuple[BaseRoute | None, Access]:
        """The route that will serve the request, and what it asks of callers."""
        for route, access in self._routes:
            if route.matches(scope)[0] is Match.FULL:
                return route, access
        return None, Access.KEY_AND_RATE

    def _check(self, scope: Scope, access: Access) -> tuple[ServiceError | None, Mapping[str, str]]:
        """The error if the request is refused, None otherwise; and headers for the response."""
        if self._keys is not None:
            key = presented_key(Headers(scope=scope), scope.get("subprotocols", ()))
            if key is None:
                error: ServiceError = KeyMissing("Send an API key, as `Authorization: Bearer KEY` or `X-API-Key: KEY`.")
                return error, {"WWW-Authenticate": _CHALLENGE}
            owner = self._keys.owner(key)
            if owner is None:
                error = KeyInvalid("This API key is not one of the service's.")
                return error, {"WWW-Authenticate": f'{_CHALLENGE}, error="invalid_token"'}
            request_context(scope).key_owner = owner
        if self._rate is None or access is Access.KEY:
            return None, {}
        retry_after, headers = self._rate.take(caller_of(scope))
        if retry_after is None:
            return None, headers
        return RateLimited("This caller has used up its rate of requests.", retry_after), headers


def _with_headers(send: Send, headers: Mapping[str, str]) -> Send:
    """`send`, with `headers` added to the response."""

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(headers)
        await send(message)

    return send_with_headers
