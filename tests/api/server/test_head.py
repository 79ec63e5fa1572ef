"""HEAD on every route that has GET: the headers of GET, and no body."""

from __future__ import annotations

import logging
from collections.abc import Callable

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from prometheus_client import CollectorRegistry

from service.api.routes import health, pages, status
from tests.api.sockets import connected, http_client, listening

KEY = "0123456789abcdef"
VARYING = {"date", "x-request-id", "content-length"}


ROUTERS = (
    health.router,
    health.metrics_router,
    status.models_router,
    status.requests_router,
    pages.page_router,
    pages.docs_router,
)
PARAMETERS = {
    "/requests/{id}": "/requests/1",
    "/page/{version}/{path:path}": "/page/1/index.html",
    "/docs/assets/{path:path}": "/docs/assets/swagger-ui.css",
}


async def test_every_get_route(new_app: Callable[..., FastAPI]) -> None:
    templates = {route.path for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)}
    app = new_app()
    assert templates >= {path for path, operations in app.openapi()["paths"].items() if "get" in operations}
    async with listening(app) as port, http_client(port) as client:
        for template in templates:
            path = PARAMETERS.get(template, template)
            got, headed = await client.get(path), await client.head(path)
            assert (path, headed.status_code) == (path, 200)
            assert headed.content == b""
            assert stable(headed) == stable(got)
            assert path == "/metrics" or headed.headers["content-length"] == got.headers["content-length"]


def stable(response: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in response.headers.items() if name not in VARYING}


async def test_the_connection_is_kept(new_app: Callable[..., FastAPI]) -> None:
    async with listening(new_app()) as port, connected(port) as connection:
        await connection.send(b"HEAD /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await connection.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        await connection.send(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await connection.response())[2] == {"status": "alive"}


async def test_routes_without_get(new_app: Callable[..., FastAPI]) -> None:
    async with listening(new_app()) as port, http_client(port) as client:
        response = await client.head("/recognize")
        assert (response.status_code, response.headers["allow"]) == (405, "POST")
        response = await client.post("/models")
        assert (response.status_code, response.headers["allow"]) == (405, "GET, HEAD")
        assert (await client.head("/nope")).status_code == 404


async def test_keys_are_needed_as_for_get(new_app: Callable[..., FastAPI]) -> None:
    async with listening(new_app(api_keys=KEY)) as port, http_client(port) as client:
        assert (await client.head("/models")).status_code == 401
        assert (await client.head("/models", headers={"x-api-key": KEY})).status_code == 200
        assert (await client.head("/livez")).status_code == 200


async def test_requests_are_counted_and_logged_as_head(
    new_app: Callable[..., FastAPI], registry: CollectorRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "service.requests"):
        async with listening(new_app()) as port, http_client(port) as client:
            await client.head("/models")
    (record,) = (record for record in caplog.records if record.name == "service.requests")
    assert (vars(record)["method"], vars(record)["route"]) == ("HEAD", "/models")
    labels = {"route": "/models", "method": "HEAD", "code": "200"}
    assert registry.get_sample_value("ser_http_requests_total", labels) == 1
