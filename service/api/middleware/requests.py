"""Middleware around every request: its id and trace, its metrics, and its line in the log. Pure ASGI.

`service.api.app` has the order of all middleware.
"""

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

from service.api.request_context import (
    CLIENT_GONE,
    RequestContext,
    known_method,
    put_request_context,
    request_context,
    route_template,
)
from service.observability.metrics import Metrics
from service.results import Timings

logger = logging.getLogger("service.requests")  # not the module's name: operators filter by it

PROBES = frozenset({"/livez", "/readyz", "/metrics"})
"""Paths that machines ask every few seconds. Requests for them are neither logged nor traced."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_ANSWERS = ("http.response.start", "websocket.accept", "websocket.http.response.start")
_PROPAGATOR = TraceContextTextMapPropagator()
_DIGITS = 6


class RootPathMiddleware:
    """Sets the prefix under which a reverse proxy shows the service, whether the proxy removes it or passes it on.

    uvicorn's own setting assumes that it is removed.
    """

    def __init__(self, app: ASGIApp, *, root_path: str) -> None:
        self.app = app
        self._root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        scope["root_path"] = self._root_path
        await self.app(scope, receive, send)


class RequestMiddleware:
    """Gives each request its id, arrival and trace; counts and times it; and logs it when its answer has left.

    A client's `X-Request-ID` is kept where it is harmless in logs and headers; otherwise a new one is made. The line in
    the log has what was answered and how long the stages took, never what was in the request. Requests are counted by
    the template of their route. Those whose client has left end here, unanswered.

    Args:
        app: the application within.
        metrics: where to count.
        log: whether to write a line for each request.
    """

    def __init__(self, app: ASGIApp, *, metrics: Metrics, log: bool) -> None:
        self.app = app
        self._metrics = metrics
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        trace.get_current_span().set_attribute("request.id", request_id)
        span, span_id = _span(headers)
        trace_id = trace.format_trace_id(span.trace_id) if span.is_valid else None
        context = RequestContext(request_id, asyncio.get_running_loop().time(), trace_id)
        put_request_context(scope, context)
        status: int = CLIENT_GONE

        async def send_with_ids(message: Message) -> None:
            nonlocal status
            if message["type"] in _ANSWERS:
                status = message.get("status", HTTPStatus.SWITCHING_PROTOCOLS)
                answer = MutableHeaders(scope=message)
                answer["X-Request-ID"] = request_id
                if trace_id is not None:
                    answer["traceparent"] = f"00-{trace_id}-{span_id}-{span.trace_flags:02x}"
            await send(message)

        began = perf_counter()  # the loop's clock is coarse
        try:
            await self.app(scope, receive, send_with_ids)
        except ClientDisconnect:
            if scope["type"] != "http":
                raise
        finally:
            seconds = perf_counter() - began
            if scope["type"] == "http":
                self._count(scope, status, seconds)
            if self._log and logger.isEnabledFor(logging.INFO) and route_template(scope) not in PROBES:
                kind = "request" if context.record.stream is None else "stream"
                logger.info(kind, extra=_fields(scope, context, status, seconds))

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        route, context = route_template(scope), request_context(scope)
        self._metrics.http_requests.labels(route, known_method(scope), str(context.record.outcome or status)).inc()
        if context.progress.segments is None:
            self._metrics.http_request_duration.labels(route).observe(seconds)
        else:  # takes as long as its recording, so that it would distort the durations of other requests
            self._metrics.segment_request_duration.observe(seconds)


def _fields(scope: Scope, context: RequestContext, status: int, seconds: float) -> dict[str, Any]:
    """What the line in the log has; fields without a value are left out."""
    record, progress = context.record, context.progress
    fields = {
        "request_id": context.id,
        "trace_id": context.trace_id,
        "method": known_method(scope),
        "route": route_template(scope),
        "status": int(record.outcome or status),
        "code": record.code,
        "seconds": round(seconds, _DIGITS),
        "files": record.files,
        "failed_files": record.failed_files or None,
        "file_names": record.file_names or None,
        "segments": progress.segments,
        "audio_seconds": None if progress.audio_seconds is None else round(progress.audio_seconds, _DIGITS),
        "close_code": record.close_code,
    }
    if record.stream is not None:
        fields |= asdict(record.stream)
    for stage, spent in Timings.longest(progress.timings).by_stage().items():
        fields[f"{stage}_seconds"] = round(spent, _DIGITS) or None  # a stage that took no time was not reached
    return {name: value for name, value in fields.items() if value is not None}


def _span(headers: Headers) -> tuple[trace.SpanContext, str]:
    """The trace of this request and its own span in it: FastAPI's, or one below the caller's."""
    own = trace.get_current_span().get_span_context()
    if own.is_valid or "traceparent" not in headers:
        return own, trace.format_span_id(own.span_id)
    return trace.get_current_span(_PROPAGATOR.extract(headers)).get_span_context(), secrets.token_hex(8)
