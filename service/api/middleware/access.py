"""API keys and rate limits, checked before a body is read or a permit is taken.

Every path is protected unless its route is declared public in `service.api.app`, so new routes and unknown paths are
protected by default.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from starlette.datastructures import Headers, MutableHeaders
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.middleware.api_keys import ApiKeys, presented_key
from service.api.middleware.rate_limit import RateLimit, client_network
from service.api.problems import refuse
from service.errors import KeyInvalid, KeyMissing, RateLimited, ServiceError
from service.observability.metrics import Metrics

_CHALLENGE = 'Bearer realm="emotion2vec-service"'


class AccessMiddleware:
    """Refuses requests without a valid key, and those of callers that exceed their rate.

    Args:
        app: the inner application.
        routes: all routes in the order in which they are matched, each with whether it is public: without key and
            rate limit.
        keys: None where no key is needed.
        rate: None where there is no limit.
        metrics: where refusals are counted.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        routes: Sequence[tuple[BaseRoute, bool]],
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
        route, public = (None, True) if scope["type"] == "lifespan" else self._route(scope)
        if public:
            await self.app(scope, receive, send)
            return
        error, headers = self._check(scope)
        if error is None:
            await self.app(scope, receive, _with_headers(send, headers))
            return
        self._metrics.requests_rejected.labels(error.code).inc()
        if route is not None:
            scope["route"] = route  # set as the router would: requests are counted and logged by their route
        await refuse(error, scope, receive, send, headers)

    def _route(self, scope: Scope) -> tuple[BaseRoute | None, bool]:
        """The route that will serve the request, and whether it is public."""
        for route, public in self._routes:
            if route.matches(scope)[0] is Match.FULL:
                return route, public
        return None, False

    def _check(self, scope: Scope) -> tuple[ServiceError | None, Mapping[str, str]]:
        """The error if the request is refused, None otherwise; and headers for the response."""
        caller = client_network(scope)
        if self._keys is not None:
            key = presented_key(Headers(scope=scope), scope.get("subprotocols", ()))
            if key is None:
                error: ServiceError = KeyMissing("Send an API key, as `Authorization: Bearer KEY` or `X-API-Key: KEY`.")
                return error, {"WWW-Authenticate": _CHALLENGE}
            owner = self._keys.owner(key)
            if owner is None:
                error = KeyInvalid("This API key is not one of the service's.")
                return error, {"WWW-Authenticate": f'{_CHALLENGE}, error="invalid_token"'}
            caller = owner
        if self._rate is None:
            return None, {}
        retry_after, headers = self._rate.take(caller)
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
