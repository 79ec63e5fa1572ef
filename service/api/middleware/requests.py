"""The outer middleware of every request: its root path, id, trace, metrics and log line."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import uuid
from dataclasses import asdict
from http import HTTPStatus
from time import perf_counter
from typing import Any

from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.request_context import CLIENT_GONE, REQUEST_CONTEXT, RequestContext
from service.observability.metrics import Metrics
from service.results import Timings

logger = logging.getLogger("service.requests")  # not the module's name: log filters of operators use it

PROBES = frozenset({"/livez", "/readyz", "/metrics"})
"""Paths that are requested every few seconds by machines. Requests for them are neither logged nor traced."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_UNMATCHED = "unmatched"  # an unknown path must not become a metric label or fill the logs
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})
_RESPONSES = ("http.response.start", "websocket.accept", "websocket.http.response.start")
_PROPAGATOR = TraceContextTextMapPropagator()
_DIGITS = 6


class RequestMiddleware:
    """Attaches a `RequestContext` to each request, counts and times it, and logs it after its response.

    A client's `X-Request-ID` is used if it is safe in logs and headers; otherwise a new one is made. The log line has
    the outcome and the time of each stage, never the content of the request. Requests are counted by the template of
    their route. `ClientDisconnect` of an HTTP request ends here, without a response. HEAD is served as GET: the routes
    have no HEAD of their own, and the server sends no body.

    Args:
        app: the inner application.
        root_path: the prefix under which a reverse proxy shows the service, whether it removes the prefix (uvicorn's
            own setting assumes so) or passes it on; empty for none.
        metrics: where requests are counted.
        log: whether to write a log line for each request.
    """

    def __init__(self, app: ASGIApp, *, root_path: str, metrics: Metrics, log: bool) -> None:
        self.app = app
        self._root_path = root_path
        self._metrics = metrics
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if self._root_path:
            scope["root_path"] = self._root_path
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        trace.get_current_span().set_attribute("request.id", request_id)
        span, span_id = _span(headers)
        trace_id = trace.format_trace_id(span.trace_id) if span.is_valid else None
        context = RequestContext(request_id, asyncio.get_running_loop().time(), trace_id)
        scope[REQUEST_CONTEXT] = context
        status: int = CLIENT_GONE

        async def send_with_ids(message: Message) -> None:
            nonlocal status
            if message["type"] in _RESPONSES:
                status = message.get("status", HTTPStatus.SWITCHING_PROTOCOLS)
                answer = MutableHeaders(scope=message)
                answer["X-Request-ID"] = request_id
                if trace_id is not None:
                    answer["traceparent"] = f"00-{trace_id}-{span_id}-{span.trace_flags:02x}"
            await send(message)

        routed = {**scope, "method": "GET"} if scope.get("method") == "HEAD" else scope
        began = perf_counter()  # the event loop's clock is coarse
        try:
            await self.app(routed, receive, send_with_ids)
        except ClientDisconnect:
            if scope["type"] != "http":
                raise
        finally:
            seconds = perf_counter() - began
            route, method = _route_template(routed), _method(scope)
            if scope["type"] == "http":
                self._count(route, method, context, status, seconds)
            if self._log and logger.isEnabledFor(logging.INFO) and route not in PROBES:
                fields = _fields(route, method, context, status, seconds)
                logger.info("request" if context.stream is None else "stream", extra=fields)

    def _count(self, route: str, method: str, context: RequestContext, status: int, seconds: float) -> None:
        self._metrics.http_requests.labels(route, method, str(context.outcome or status)).inc()
        if context.progress.segments is None:
            self._metrics.http_request_duration.labels(route).observe(seconds)
        else:  # depends on the length of the recording, so that it would distort the durations of other requests
            self._metrics.segment_request_duration.observe(seconds)


def _route_template(scope: Scope) -> str:
    """The path template of the route that serves a request, never its path; known once the request is routed."""
    return getattr(scope.get("route"), "path_format", _UNMATCHED)


def _method(scope: Scope) -> str:
    """The method of a request; `other` if HTTP does not define it."""
    method = scope.get("method", "GET")  # the scope of a WebSocket has none; its opening request is a GET
    return method if method in _METHODS else "other"


def _fields(route: str, method: str, context: RequestContext, status: int, seconds: float) -> dict[str, Any]:
    """The fields of the log line; those without a value are left out."""
    progress = context.progress
    fields = {
        "request_id": context.id,
        "trace_id": context.trace_id,
        "method": method,
        "route": route,
        "status": int(context.outcome or status),
        "code": context.code,
        "seconds": round(seconds, _DIGITS),
        "files": context.files,
        "failed_files": context.failed_files or None,
        "file_names": context.file_names or None,
        "segments": progress.segments,
        "audio_seconds": None if progress.audio_seconds is None else round(progress.audio_seconds, _DIGITS),
        "close_code": context.close_code,
    }
    if context.stream is not None:
        fields |= asdict(context.stream)
    for stage, spent in Timings.longest(progress.timings).by_stage().items():
        fields[f"{stage}_seconds"] = round(spent, _DIGITS) or None  # a stage that took no time was not reached
    return {name: value for name, value in fields.items() if value is not None}


def _span(headers: Headers) -> tuple[trace.SpanContext, str]:
    """The span context of this request and its span id: FastAPI's span, or a new id in the caller's trace."""
    own = trace.get_current_span().get_span_context()
    if own.is_valid or "traceparent" not in headers:
        return own, trace.format_span_id(own.span_id)
    return trace.get_current_span(_PROPAGATOR.extract(headers)).get_span_context(), secrets.token_hex(8)
