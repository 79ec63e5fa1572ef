from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from service.api.app import create_app
from service.observability.metrics import Metrics
from service.settings.sources import load_settings
from tests.api.double import RecognizerDouble


@pytest.fixture
async def recognizer() -> RecognizerDouble:
    return RecognizerDouble()


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def new_app(recognizer: RecognizerDouble, registry: CollectorRegistry) -> Callable[..., FastAPI]:
    """Makes an application around the double with the given settings, by default without the answer cache."""

    def make(**settings: Any) -> FastAPI:
        return create_app(recognizer, load_settings(**{"answer_cache_bytes": 0, **settings}), Metrics(registry))

    return make


@pytest.fixture
async def client(new_app: Callable[..., FastAPI]) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application with default settings."""
    async with serving(new_app()) as opened:
        yield opened


def serving(app: FastAPI, root_path: str = "") -> AbstractAsyncContextManager[httpx.AsyncClient]:
    """A client of `app`, inside its lifespan, with the root path that the server sets."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[httpx.AsyncClient]:
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(
                transport=httpx.ASGITransport(app, root_path=root_path), base_url="http://localhost"
            ) as client,
        ):
            yield client

    return opened()
