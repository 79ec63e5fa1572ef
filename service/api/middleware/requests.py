"""Pure-ASGI middleware: who is asking, what came of it, and that every failure leaves as a problem document.

`service.api.app` has the order of all middleware.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import uuid
from http import HTTPStatus
from time import perf_counter

from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.problems import ProblemResponse, problem_of, problem_of_status, reported, retry_headers
from service.api.request_context import (
    CLIENT_GONE,
    RequestContext,
    can_deny,
    known_method,
    put_request_context,
    request_context,
    route_template,
)
from service.errors import Draining, ServiceError
from service.observability.metrics import Metrics

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_ANSWERS = ("http.response.start", "websocket.accept", "websocket.http.response.start")
_PROPAGATOR = TraceContextTextMapPropagator()


class RootPathMiddleware:
    """Says under which prefix a reverse proxy shows the service, whether it cuts the prefix off or passes it on.

    uvicorn, told the prefix, would take it for granted that it is cut off.
    """

    def __init__(self, app: ASGIApp, *, root_path: str) -> None:
        self.app = app
        self._root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        scope["root_path"] = self._root_path
        await self.app(scope, receive, send)


class RequestContextMiddleware:
    """Gives each request its id, arrival and trace, and says the id and the trace in the answer.

    A client's `X-Request-ID` is kept where it is harmless in logs and headers; otherwise a new one is made.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

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
        put_request_context(scope, RequestContext(request_id, asyncio.get_running_loop().time(), trace_id))

        async def send_with_ids(message: Message) -> None:
            if message["type"] in _ANSWERS:
                answer = MutableHeaders(scope=message)
                answer["X-Request-ID"] = request_id
                if trace_id is not None:
                    answer["traceparent"] = f"00-{trace_id}-{span_id}-{span.trace_flags:02x}"
            await send(message)

        await self.app(scope, receive, send_with_ids)


class MetricsMiddleware:
    """Counts and times requests by the template of their route; those whose caller has left end here, unanswered."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self.app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        code = CLIENT_GONE
        began = perf_counter()  # the loop's clock is coarse

        async def send_and_note(message: Message) -> None:
            nonlocal code
            if message["type"] == "http.response.start":
                code = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, send_and_note)
        except ClientDisconnect:
            pass  # there is nobody left to answer
        finally:
            route = route_template(scope)
            notes = request_context(scope).notes
            self._metrics.http_requests.labels(route, known_method(scope), str(notes.outcome or code)).inc()
            if notes.segments is None:
                self._metrics.http_request_duration.labels(route).observe(perf_counter() - began)
            else:  # takes as long as its recording, and would tell nothing about those beside it
                self._metrics.segment_request_duration.observe(perf_counter() - began)


class ProblemMiddleware:
    """Turns what no exception handler took into problem documents: crashes, shutdown, and the framework's own answers.

    Among the latter is the plain 413 of FastAPI's `max_body_size`, which replaces the answer of a route whose
    request declares too long a body.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "websocket":
            await self._serve_socket(scope, receive, send)
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        context = request_context(scope)
        started = replaced = False

        async def send_problems(message: Message) -> None:
            nonlocal started, replaced
            if message["type"] == "http.response.start":
                started = True
                replaced = message["status"] >= 400 and not _is_problem(message)
                if replaced:
                    response = ProblemResponse(problem_of_status(message["status"], Request(scope)))
                    await response(scope, receive, send)
            if not replaced:
                await send(message)

        async def fail(error: ServiceError) -> None:
            if not started:
                await ProblemResponse(problem_of(error, context.id), retry_headers(error))(scope, receive, send)

        try:
            await self.app(scope, receive, send_problems)
        except ClientDisconnect:
            raise
        except asyncio.CancelledError:
            # The server gives up on what is still running when its grace is over.
            await fail(Draining("The service is shutting down; another instance will answer."))
            raise
        except Exception as exc:
            error = reported(exc, context)
            if started:
                raise  # the server cuts the connection, so that half an answer does not pass for a whole one
            await fail(error)

    async def _serve_socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Streams tell their problems themselves; what is no stream is not found, as it would be without a socket."""
        accepted = False

        async def send_problems(message: Message) -> None:
            nonlocal accepted
            accepted = accepted or message["type"] == "websocket.accept"
            if message["type"] == "websocket.close" and not accepted and can_deny(scope):
                await ProblemResponse(problem_of_status(HTTPStatus.NOT_FOUND, HTTPConnection(scope)))(
                    scope, receive, send
                )
            else:
                await send(message)

        await self.app(scope, receive, send_problems)


def _span(headers: Headers) -> tuple[trace.SpanContext, str]:
    """The trace of this request and its own place in it: FastAPI's span for it, or one below the caller's."""
    own = trace.get_current_span().get_span_context()
    if own.is_valid or "traceparent" not in headers:
        return own, trace.format_span_id(own.span_id)
    return trace.get_current_span(_PROPAGATOR.extract(headers)).get_span_context(), secrets.token_hex(8)


def _is_problem(message: Message) -> bool:
    return Headers(raw=list(message["headers"])).get("content-type") == ProblemResponse.media_type
