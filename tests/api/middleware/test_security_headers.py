from __future__ import annotations

import re
from collections.abc import Callable

import httpx
import pytest
from fastapi import FastAPI
from starlette.requests import HTTPConnection

from service.api.middleware.security_headers import check_origin
from service.errors import OriginForbidden
from service.settings.settings import Settings
from tests.api.conftest import serving
from tests.api.sounds import wav

HERE = "https://app.example.com"


def policy(response: httpx.Response) -> dict[str, str]:
    parts = (part.strip().partition(" ") for part in response.headers["content-security-policy"].split(";"))
    return {name: sources for name, _, sources in parts}


@pytest.mark.parametrize("path", ["/", "/docs"])
async def test_pages_may_load_files_of_this_service_only(client: httpx.AsyncClient, path: str) -> None:
    page = await client.get(path)
    assert page.headers["content-type"].startswith("text/html")
    found = policy(page)
    assert found["default-src"] == found["frame-ancestors"] == found["base-uri"] == "'none'"
    assert found["script-src"] == found["connect-src"] == found["style-src"] == "'self'"
    assert "unsafe" not in page.headers["content-security-policy"]
    assert page.headers["referrer-policy"] == "no-referrer"
    assert "microphone=(self)" in page.headers["permissions-policy"]
    assert "camera=()" in page.headers["permissions-policy"]
    assert page.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", ["/", "/docs"])
async def test_pages_contain_no_inline_script_or_style(client: httpx.AsyncClient, path: str) -> None:
    page = (await client.get(path)).text
    assert re.findall(r"<script(?![^>]*\ssrc=)", page) == []
    assert "<style" not in page
    assert re.findall(r"<[^>]+\s(?:on\w+|style)=", page) == []


@pytest.mark.parametrize("path", ["/livez", "/metrics", "/models", "/nothing", "/docs/assets/swagger-ui.css"])
async def test_browsers_must_not_guess_content_types(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(path)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "content-security-policy" not in answer.headers


async def ask(client: httpx.AsyncClient, origin: str) -> httpx.Response:
    headers = {"content-type": "audio/wav", "origin": origin}
    return await client.post("/recognize", content=wav(), headers=headers)


async def preflight(client: httpx.AsyncClient, origin: str, headers: str = "x-api-key") -> httpx.Response:
    request_headers = {"access-control-request-method": "POST", "access-control-request-headers": headers}
    return await client.options("/recognize", headers={"origin": origin, **request_headers})


async def test_no_other_origin_may_read_answers_by_default(client: httpx.AsyncClient) -> None:
    for answer in (await ask(client, HERE), await preflight(client, HERE)):
        assert not [name for name in answer.headers if name.startswith("access-control-")]


async def test_allowed_origins_may_call_and_read_the_exposed_headers(new_app: Callable[..., FastAPI]) -> None:
    key = "k" * 32
    async with serving(new_app(cors_origins=f"{HERE}, http://localhost:3000", api_keys=key)) as client:
        for origin in (HERE, "http://localhost:3000"):
            allowed = await preflight(
                client, origin, "authorization, x-api-key, content-type, x-request-id, traceparent"
            )
            assert allowed.status_code == 200  # browsers send no key with it
            assert allowed.headers["access-control-allow-origin"] == origin
            refused = await ask(client, origin)
            assert refused.status_code == 401
            assert refused.headers["access-control-allow-origin"] == origin
            exposed = {name.strip().lower() for name in refused.headers["access-control-expose-headers"].split(",")}
            assert {"server-timing", "x-request-id", "retry-after", "ratelimit"} <= exposed
            assert "access-control-allow-credentials" not in refused.headers


APPS = [
    "capacitor://localhost",
    "ionic://localhost",
    "tauri://localhost",
    "chrome-extension://abcdefghijklmnopabcdefghijklmnop",
    "moz-extension://0a1b2c3d-0000-4000-8000-000000000000",
]


@pytest.mark.parametrize("origin", APPS)
async def test_apps_and_extensions_may_be_allowed(new_app: Callable[..., FastAPI], origin: str) -> None:
    async with serving(new_app(cors_origins=origin)) as client:
        for answer in (await ask(client, origin), await preflight(client, origin)):
            assert answer.status_code == 200
            assert answer.headers["access-control-allow-origin"] == origin
        assert "access-control-allow-origin" not in (await ask(client, f"{origin}x")).headers
    connection = HTTPConnection({"type": "websocket", "headers": [(b"origin", origin.encode()), (b"host", b"x")]})
    check_origin(connection, Settings(cors_origins=(origin,)))
    with pytest.raises(OriginForbidden):
        check_origin(connection, Settings())


@pytest.mark.parametrize("origin", ["https://evil.example.com", "https://app.example.com.evil.org", "null"])
async def test_other_origins_are_not_allowed(new_app: Callable[..., FastAPI], origin: str) -> None:
    async with serving(new_app(cors_origins=HERE)) as client:
        assert "access-control-allow-origin" not in (await ask(client, origin)).headers
        refused = await preflight(client, origin)
        assert refused.status_code == 400
        assert "access-control-allow-origin" not in refused.headers
