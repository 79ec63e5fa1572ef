"""The names under which the service may be reached: a page must not use it by letting its own name point to it."""

from __future__ import annotations

import socket
from collections.abc import Callable

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.api.answers import problem
from tests.api.conftest import serving
from tests.api.sockets import connected, listening
from tests.api.sounds import wav

REBOUND = "rebound.example.com"
HERE = ["localhost", "LOCALHOST:8000", "localhost.", "app.localhost:3000", "127.0.0.1", "127.0.0.1:8000", "[::1]:8000"]
HERE += ["192.0.2.1:80", socket.gethostname()]
FOREIGN = [REBOUND, f"{REBOUND}:8000", "localhost.example.com", "127.0.0.1.example.com", "notlocalhost", "x"]


async def ask(app: FastAPI, host: str, path: str = "/models") -> httpx.Response:
    async with serving(app) as client:
        return await client.get(path, headers={"host": host})


@pytest.mark.parametrize("listens", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
@pytest.mark.parametrize("host", HERE)
async def test_names_and_addresses_of_this_machine(new_app: Callable[..., FastAPI], listens: str, host: str) -> None:
    assert (await ask(new_app(host=listens), host)).status_code == 200


@pytest.mark.parametrize("listens", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
@pytest.mark.parametrize("host", FOREIGN)
async def test_other_names_while_listening_on_a_loopback_address(
    new_app: Callable[..., FastAPI], registry: CollectorRegistry, listens: str, host: str
) -> None:
    problem(await ask(new_app(host=listens), host), 403, "host_forbidden")
    assert registry.get_sample_value("ser_requests_rejected_total", {"reason": "host_forbidden"}) == 1


@pytest.mark.parametrize("listens", ["0.0.0.0", "::", "192.0.2.1", "speech.example.com"])
async def test_any_name_while_listening_on_other_addresses(new_app: Callable[..., FastAPI], listens: str) -> None:
    assert (await ask(new_app(host=listens), REBOUND)).status_code == 200


@pytest.mark.parametrize("path", ["/", "/docs", "/metrics", "/models", "/requests/1", "/nope"])
async def test_every_path_is_checked(new_app: Callable[..., FastAPI], path: str) -> None:
    answer = await ask(new_app(), REBOUND, path)
    problem(answer, 403, "host_forbidden")
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
async def test_probes_may_use_any_name(new_app: Callable[..., FastAPI], path: str) -> None:
    assert (await ask(new_app(allowed_hosts="speech.example.com"), "10.1.2.3:8000", path)).status_code == 200


ALLOWED = "speech.example.com, *.example.org, [::1]"


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("speech.example.com", 200),
        ("Speech.Example.com:443", 200),
        ("a.example.org", 200),
        ("a.b.example.org", 200),
        ("[::1]:8000", 200),
        ("example.org", 403),
        ("evilexample.org", 403),
        ("a.speech.example.com", 403),
        ("localhost", 403),
        ("127.0.0.1", 403),
    ],
)
@pytest.mark.parametrize("listens", ["127.0.0.1", "0.0.0.0"])
async def test_allowed_hosts(new_app: Callable[..., FastAPI], listens: str, host: str, status: int) -> None:
    assert (await ask(new_app(host=listens, allowed_hosts=ALLOWED), host)).status_code == status


async def test_any_host_may_be_allowed(new_app: Callable[..., FastAPI]) -> None:
    assert (await ask(new_app(allowed_hosts="*"), REBOUND)).status_code == 200


async def test_the_host_is_checked_before_the_key_and_the_body(new_app: Callable[..., FastAPI]) -> None:
    async with serving(new_app(api_keys="0123456789abcdef")) as client:
        answer = await client.post("/recognize", content=wav(), headers={"host": REBOUND})
        problem(answer, 403, "host_forbidden")


async def test_a_rebound_page_opens_no_stream(new_app: Callable[..., FastAPI]) -> None:
    """Its `Origin` equals the `Host`, so that only the host tells."""
    async with listening(new_app()) as port:
        uri = f"ws://{REBOUND}:{port}/stream"
        with pytest.raises(InvalidStatus) as refused:
            async with connect(uri, host="127.0.0.1", port=port, origin=f"http://{REBOUND}:{port}"):  # type: ignore[arg-type]
                pass
    assert refused.value.response.status_code == 403
    assert b"host_forbidden" in (refused.value.response.body or b"")


async def test_a_request_of_http_1_0_without_host(new_app: Callable[..., FastAPI]) -> None:
    async with listening(new_app()) as port, connected(port) as connection:
        await connection.send(b"GET /models HTTP/1.0\r\n\r\n")
        assert (await connection.response())[0] == 200
