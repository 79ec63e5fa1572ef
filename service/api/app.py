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

from service import __version__
from service.api.middleware.access import AccessMiddleware
from service.api.middleware.api_keys import ApiKeys
from service.api.middleware.body_timeout import BodyTimeoutMiddleware
from service.api.middleware.rate_limit import RateLimit
from service.api.middleware.request_log import AccessLogMiddleware
from service.api.middleware.requests import (
    MetricsMiddleware,
    ProblemMiddleware,
    RequestContextMiddleware,
    RootPathMiddleware,
)
from service.api.middleware.security_headers import SecurityHeadersMiddleware, cross_origin
from service.api.openapi import DescribedApp, Protection
from service.api.problems import answer_http_exception, answer_service_error, answer_validation_error
from service.api.request_context import Services, StreamShare
from service.api.routes import health, pages
from service.api.routes.batch import batch_router
from service.api.routes.recognize import recognize_router
from service.api.stream import route as stream
from service.errors import ServiceError
from service.inference.recognizer import Recognizer
from service.inference.segment_permits import SegmentPermits
from service.observability.metrics import Metrics
from service.observability.spans import telemetry, tracer_of
from service.recognition.cache import AnswerCache
from service.settings.settings import Settings

_DESCRIPTION = """Speech emotion recognition with emotion2vec+: scores, embeddings and scores over time.

Every error is a problem document (RFC 9457) with a stable `code`. Every answer has an `X-Request-ID`."""


def create_app(
    recognizer: Recognizer, settings: Settings, metrics: Metrics, tracer_provider: TracerProvider | None = None
) -> FastAPI:
    """Make the application.

    Its lifespan starts the recognizer, whose model loads in the background, and drains it in the end.

    Args:
        recognizer: answers clips; nobody else starts it.
        settings: limits and paths.
        metrics: where to count.
        tracer_provider: takes the spans of requests; None makes none.

    Raises:
        SettingsInvalid: if the file of API keys cannot be used.
    """
    keys, rate = ApiKeys.of(settings), RateLimit.of(settings)
    everybody = keys is None
    # Routers in the order in which they are tried, and whether each is public: neither asks for a key nor counts.
    routers = [
        (recognize_router(settings), False),
        (batch_router(settings), False),
        (stream.router, False),
        (health.router, True),
        (health.metrics_router, settings.public_metrics or everybody),
        (health.models_router, False),
        # The page asks while it waits; that must not use up what its caller may send.
        (health.requests_router, settings.public_pages or everybody),
    ]
    if settings.page:
        routers.append((pages.page_router, settings.public_pages or everybody))
    if settings.docs:
        routers.append((pages.docs_router, settings.public_pages or everybody))
    routes = [(route, public) for router, public in routers for route in router.routes]
    pool = ThreadPoolExecutor(settings.decode_threads, thread_name_prefix="decode")
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
            for each in (pool, streams.pool):
                each.shutdown(wait=False, cancel_futures=True)

    middleware = [
        Middleware(BodyTimeoutMiddleware, total=settings.body_timeout, idle=settings.body_idle_timeout),
        Middleware(RequestContextMiddleware),
        *([Middleware(AccessLogMiddleware)] if settings.access_log else []),
        Middleware(MetricsMiddleware, metrics=metrics),
        *cross_origin(settings),
        Middleware(SecurityHeadersMiddleware),
        Middleware(ProblemMiddleware),
    ]
    if settings.root_path:
        middleware.insert(0, Middleware(RootPathMiddleware, root_path=settings.root_path))
    if keys is not None or rate is not None:
        middleware.append(Middleware(AccessMiddleware, routes=routes, keys=keys, rate=rate, metrics=metrics))
    app = DescribedApp(
        title="emotion2vec-service",
        version=__version__,
        description=_DESCRIPTION,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        lifespan=lifespan,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry=telemetry(tracer_provider),
        middleware=middleware,
        exception_handlers={
            ServiceError: answer_service_error,
            HTTPException: answer_http_exception,
            RequestValidationError: answer_validation_error,
        },
    )
    app.protection = Protection(
        public=frozenset(route.path for route, public in routes if public and isinstance(route, Route)),
        keys=keys is not None,
        rate=rate is not None,
    )
    cache = AnswerCache(settings.answer_cache_bytes, metrics) if settings.answer_cache_bytes else None
    permits = SegmentPermits(settings.segment_permits, metrics)
    tracer = tracer_of(tracer_provider)
    app.state.services = Services(recognizer, settings, metrics, pool, cache, tracer, streams, permits)
    for router, _ in routers:
        app.include_router(router)
    return app
