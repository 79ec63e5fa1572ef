"""Who may ask, and how often: decided before a body is read or a permit taken.

Everything is protected that is not a route declared public, so new routes are without doing anything for it, and so are
paths that do not exist. `service.api.app` declares.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from starlette.datastructures import Headers, MutableHeaders
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from service.api.middleware.api_keys import ApiKeys, offered_key, presented_key
from service.api.middleware.rate_limit import RateLimit, client_network
from service.api.problems import ProblemResponse, problem_of, retry_headers
from service.api.request_context import can_deny, request_context
from service.errors import KeyInvalid, KeyMissing, RateLimited, ServiceError
from service.observability.metrics import Metrics

_CHALLENGE = 'Bearer realm="emotion2vec-service"'
_WRONG_KEY = f'{_CHALLENGE}, error="invalid_token"'
_POLICY_VIOLATION = 1008


class AccessMiddleware:
    """Refuses callers without a key, and those that ask too often.

    Args:
        app: the application within.
        routes: all routes, in the order in which they are tried, each with whether it is public: open to everybody,
            however often.
        keys: None where no key is needed.
        rate: None where there is no limit.
        metrics: where to count refusals.
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
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        route, public = self._route(scope)
        if public:
            await self.app(scope, receive, send)
            return
        caller = client_network(scope)
        if self._keys is not None:
            presented = presented_key(Headers(scope=scope))
            if presented is None:
                presented = offered_key(scope.get("subprotocols", ()))
            owner = None if presented is None else self._keys.owner(presented)
            if owner is None:
                await self._refuse_stranger(presented is not None, route, scope, receive, send)
                return
            caller = owner
        if self._rate is None:
            await self.app(scope, receive, send)
            return
        allowance = self._rate.take(caller)
        if allowance.retry_after is None:
            await self.app(scope, receive, _adding(allowance.headers, send))
        else:
            error = RateLimited("This caller has used up its rate of requests.", allowance.retry_after)
            await self._refuse(error, {**retry_headers(error), **allowance.headers}, route, scope, receive, send)

    def _route(self, scope: Scope) -> tuple[BaseRoute | None, bool]:
        """The route that will answer, and whether it is public."""
        for route, public in self._routes:
            if route.matches(scope)[0] is Match.FULL:
                return route, public
        return None, False

    async def _refuse_stranger(
        self, wrong: bool, route: BaseRoute | None, scope: Scope, receive: Receive, send: Send
    ) -> None:
        if wrong:
            error: ServiceError = KeyInvalid("This API key is not one of the service's.")
        else:
            error = KeyMissing("Send an API key, as `Authorization: Bearer KEY` or `X-API-Key: KEY`.")
        headers = {"WWW-Authenticate": _WRONG_KEY if wrong else _CHALLENGE}
        await self._refuse(error, headers, route, scope, receive, send)

    async def _refuse(
        self,
        error: ServiceError,
        headers: Mapping[str, str],
        route: BaseRoute | None,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        self._metrics.requests_rejected.labels(error.code).inc()
        response = ProblemResponse(problem_of(error, request_context(scope).id), headers)
        if scope["type"] == "http":
            if route is not None:
                scope["route"] = route  # as the router would have done: requests are counted by their route
            await response(scope, receive, send)
        elif can_deny(scope):
            await WebSocket(scope, receive, send).send_denial_response(response)
        else:
            await WebSocket(scope, receive, send).close(_POLICY_VIOLATION)


def _adding(headers: Mapping[str, str], send: Send) -> Send:
    """`send` with more headers in the answer."""

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(headers)
        await send(message)

    return send_with_headers
