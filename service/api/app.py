"""The application: routes, middleware and exception handlers around a recognizer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from opentelemetry.trace import TracerProvider
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from service import __version__
from service.api.middleware.access import Access, AccessMiddleware
from service.api.middleware.api_keys import ApiKeys
from service.api.middleware.body_timeout import BodyTimeoutMiddleware
from service.api.middleware.errors import ErrorMiddleware
from service.api.middleware.hosts import HostMiddleware, host_check
from service.api.middleware.rate_limit import RateLimit
from service.api.middleware.requests import PROBES, RequestMiddleware
from service.api.middleware.security_headers import SecurityHeadersMiddleware, cross_origin
from service.api.openapi import DescribedApp
from service.api.problems import answer_http_exception, answer_service_error, answer_validation_error
from service.api.request_context import Services
from service.api.routes import batch, health, pages, recognize, status
from service.api.stream import route as stream
from service.api.trace_headers import drop_invalid_trace_headers
from service.errors import ServiceError
from service.inference.recognizer import Recognizer
from service.observability.metrics import Metrics
from service.observability.telemetry import Telemetry
from service.recognition.cache import AnswerCache
from service.recognition.core import Core
from service.recognition.live.stream import StreamShare
from service.settings.settings import Settings

_DESCRIPTION = """Speech emotion recognition with emotion2vec+: scores, embeddings and scores over time.

Every error is a problem document (RFC 9457) with a stable `code`. Every answer has an `X-Request-ID`."""

_FRAME_EMBEDDING_CLIPS = 2
"""Frame embeddings per request, in clips of maximal length: enough for the longest stereo file."""


class Application(DescribedApp):
    """The application with its OpenAPI document.

    FastAPI reads trace headers before any middleware, so that they are checked here.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "lifespan":
            drop_invalid_trace_headers(scope)
        await super().__call__(scope, receive, send)


def create_app(
    recognizer: Recognizer, settings: Settings, metrics: Metrics, tracer_provider: TracerProvider | None = None
) -> FastAPI:
    """Make the application.

    Its lifespan starts the recognizer, whose model loads in the background, and drains it at the end.

    Args:
        recognizer: recognises clips; it must not be started yet.
        settings: limits and paths.
        metrics: where requests and events are counted.
        tracer_provider: receives the spans of requests; None for no tracing.

    Raises:
        SettingsInvalid: if the file of API keys is not valid.
    """
    keys = ApiKeys.of(settings)
    rate = RateLimit(settings.rate_limit, settings.rate_burst) if settings.rate_limit else None
    no_keys = keys is None
    pages_access = Access.PUBLIC if settings.public_pages or no_keys else Access.KEY_AND_RATE
    metrics_access = Access.PUBLIC if settings.public_metrics or no_keys else Access.KEY_AND_RATE
    # Routers in the order in which they are matched, and what each asks of callers.
    routers = [
        (recognize.recognize_router(settings), Access.KEY_AND_RATE),
        (batch.batch_router(settings), Access.KEY_AND_RATE),
        (stream.router, Access.KEY_AND_RATE),
        (health.router, Access.PUBLIC),
        (health.metrics_router, metrics_access),
        (status.models_router, Access.KEY_AND_RATE),
        # The page polls it while it waits; this must not count against the caller's rate.
        (status.requests_router, Access.KEY),
    ]
    if settings.page:
        routers.append((pages.page_router, pages_access))
    if settings.docs:
        routers.append((pages.docs_router, pages_access))
    routes = [(route, access) for router, access in routers for route in router.routes]
    observer = Telemetry(metrics, tracer_provider)
    core = Core(
        recognizer,
        ThreadPoolExecutor(settings.decode_threads, thread_name_prefix="decode"),
        settings.max_duration,
        settings.longest_clip,
        observer,
        AnswerCache(settings.answer_cache_bytes, observer) if settings.answer_cache_bytes else None,
        frame_embedding_seconds=_FRAME_EMBEDDING_CLIPS * settings.longest_clip,
    )
    streams = StreamShare(
        asyncio.Semaphore(stream.TURNS), ThreadPoolExecutor(stream.THREADS, thread_name_prefix="stream")
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await recognizer.start()
        try:
            yield
        finally:
            await recognizer.drain(settings.drain_timeout)
            for threads in (core.threads, streams.threads):
                threads.shutdown(wait=False, cancel_futures=True)

    middleware = [
        Middleware(
            BodyTimeoutMiddleware,
            total=settings.body_timeout,
            idle=settings.body_idle_timeout,
            rate=settings.min_body_rate,
        ),
        Middleware(RequestMiddleware, root_path=settings.root_path, metrics=metrics, log=settings.access_log),
        *cross_origin(settings),
        Middleware(SecurityHeadersMiddleware),
        Middleware(ErrorMiddleware),
    ]
    is_allowed = host_check(settings)
    if is_allowed is not None:
        middleware.append(Middleware(HostMiddleware, is_allowed=is_allowed, metrics=metrics))
    if keys is not None or rate is not None:
        middleware.append(Middleware(AccessMiddleware, routes=routes, keys=keys, rate=rate, metrics=metrics))
    app = Application(
        title="emotion2vec-service",
        version=__version__,
        description=_DESCRIPTION,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        lifespan=lifespan,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        # A span for each request if there is a provider; the service has its own metrics and logs.
        telemetry={
            "tracer_provider": tracer_provider,
            "tracing": tracer_provider is not None,
            "operation_spans": False,
            "metrics": False,
            "logs": False,
            "auto_configure": False,
            "exclude": _is_probe,
        },
        middleware=middleware,
        exception_handlers={
            ServiceError: answer_service_error,
            HTTPException: answer_http_exception,
            RequestValidationError: answer_validation_error,
        },
    )
    app.access = {route.path: access for route, access in routes if isinstance(route, Route)}
    app.needs_key, app.limits_rate, app.checks_host = not no_keys, rate is not None, is_allowed is not None
    app.state.services = Services(core, settings, metrics, streams)
    for router, _ in routers:
        app.include_router(router)
    return app


def _is_probe(scope: Scope) -> bool:
    return str(scope["path"]).removeprefix(scope.get("root_path", "")) in PROBES
