"""The application: routes, middleware and exception handlers around a recognizer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware

from service import __version__
from service.api import pages, probes
from service.api.batch import batch_router
from service.api.body import BodyTimeoutMiddleware
from service.api.context import Services
from service.api.middleware import MetricsMiddleware, ProblemMiddleware, RequestContextMiddleware
from service.api.openapi import DescribedApp
from service.api.problems import answer_http_exception, answer_service_error, answer_validation_error
from service.api.recognize import recognize_router
from service.errors import ServiceError
from service.inference.recognizer import Recognizer
from service.metrics import Metrics
from service.settings import Settings

_DESCRIPTION = """Speech emotion recognition with emotion2vec+: scores, embeddings and scores over time.

Every error is a problem document (RFC 9457) with a stable `code`. Every answer has an `X-Request-ID`."""


def create_app(recognizer: Recognizer, settings: Settings, metrics: Metrics) -> FastAPI:
    """Make the application.

    Its lifespan starts the recognizer, whose model loads in the background, and drains it in the end.

    Args:
        recognizer: answers clips; nobody else starts it.
        settings: limits and paths.
        metrics: where to count.
    """
    pool = ThreadPoolExecutor(settings.decode_threads, thread_name_prefix="decode")

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await recognizer.start()
        try:
            yield
        finally:
            await recognizer.drain(settings.drain_timeout)
            pool.shutdown(wait=False, cancel_futures=True)

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
        middleware=[
            Middleware(BodyTimeoutMiddleware, total=settings.body_timeout, idle=settings.body_idle_timeout),
            Middleware(RequestContextMiddleware),
            Middleware(MetricsMiddleware, metrics=metrics),
            Middleware(ProblemMiddleware),
        ],
        exception_handlers={
            ServiceError: answer_service_error,
            HTTPException: answer_http_exception,
            RequestValidationError: answer_validation_error,
        },
    )
    app.state.services = Services(recognizer, settings, metrics, pool)
    app.include_router(recognize_router(settings))
    app.include_router(batch_router(settings))
    app.include_router(probes.router)
    app.include_router(pages.router)
    if settings.docs:
        app.include_router(pages.docs_router)
    return app
