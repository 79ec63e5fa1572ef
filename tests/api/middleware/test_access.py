"""Every route that is not declared public needs a key, checked before the body is read."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request, WebSocket
from prometheus_client import CollectorRegistry, generate_latest
from starlette.responses import PlainTextResponse, Response

from tests.api.answers import problem
from tests.api.conftest import serving
from tests.api.double import RecognizerDouble
from tests.api.sockets import connected, head, http_client, listening
from tests.api.sounds import wav
from tests.inference.running import until

KEY = "0123456789abcdef-first"
OTHER = "0123456789abcdef-second"
BEARER = {"authorization": f"Bearer {KEY}"}
PROTECTED = [
    ("POST", "/recognize"),
    ("POST", "/recognize/batch"),
    ("GET", "/models"),
    ("GET", "/metrics"),
    ("GET", "/nothing/here"),
    ("GET", "/recognize"),
    ("POST", "/livez"),
    ("OPTIONS", "/recognize"),
    ("GET", "/docs/../recognize"),
    ("GET", "/livez/"),
]


@pytest.mark.parametrize(("method", "path"), PROTECTED)
async def test_requests_without_a_valid_key_are_refused(
    new_app: Callable[..., FastAPI], recognizer: RecognizerDouble, method: str, path: str
) -> None:
    async with serving(new_app(api_keys=KEY)) as client:
        answer = await client.request(method, path)
        document = problem(answer, 401, "key_missing")
        assert answer.headers["www-authenticate"] == 'Bearer realm="emotion2vec-service"'
        assert "X-API-Key" in document["detail"]
        answer = await client.request(method, path, headers={"x-api-key": KEY + "x"})
        problem(answer, 401, "key_invalid")
        assert answer.headers["www-authenticate"] == 'Bearer realm="emotion2vec-service", error="invalid_token"'
        assert (await client.request(method, path, headers=BEARER)).status_code != 401
    assert recognizer.most_permits == (1 if (method, path) in PROTECTED[:2] else 0)  # for the one with the key


async def test_every_documented_operation_needs_a_key_except_probes_and_the_page(
    new_app: Callable[..., FastAPI],
) -> None:
    app = new_app(api_keys=KEY)
    document = app.openapi()
    async with serving(app) as client:
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                answer = await client.request(method, path)
                if path in ("/livez", "/readyz"):
                    assert answer.status_code == 200
                    assert operation["security"] == []
                else:
                    assert answer.status_code == 401
                    assert "security" not in operation
                    assert set(operation["responses"]["401"]["content"]["application/problem+json"]["examples"]) == {
                        "key_missing",
                        "key_invalid",
                    }


async def test_new_routes_are_protected_by_default(new_app: Callable[..., FastAPI]) -> None:
    app = new_app(api_keys=KEY)

    async def secret() -> str:
        return "secret"

    async def plain(_: Request) -> Response:
        return PlainTextResponse("secret")

    app.add_api_route("/new", secret)
    app.add_route("/plain", plain)
    async with serving(app) as client:
        problem(await client.get("/new"), 401, "key_missing")
        problem(await client.get("/plain"), 401, "key_missing")
        assert (await client.get("/new", headers=BEARER)).json() == "secret"


async def test_the_progress_of_a_request_is_shown_to_its_key_only(
    new_app: Callable[..., FastAPI], recognizer: RecognizerDouble
) -> None:
    recognizer.gate.clear()
    async with serving(new_app(api_keys=f"{KEY},{OTHER}", rate_limit=60, rate_burst=2)) as client:

        def post(key: str) -> asyncio.Task[httpx.Response]:
            headers = {"content-type": "audio/wav", "x-request-id": "mine", "x-api-key": key}
            return asyncio.create_task(client.post("/recognize", content=wav(), headers=headers))

        async def state(key: str) -> str:
            found: str = (await client.get("/requests/mine", headers={"x-api-key": key})).json()["state"]
            return found

        mine = post(KEY)
        await until(lambda: recognizer.waiting == 1)
        problem(await client.get("/requests/mine"), 401, "key_missing")
        problem(await client.get("/requests/mine", headers={"x-api-key": KEY + "x"}), 401, "key_invalid")
        assert await state(OTHER) == "unknown"
        assert {await state(KEY) for _ in range(10)} == {"running"}, "asking does not count against the rate"
        theirs = post(OTHER)  # with the same id
        await until(lambda: recognizer.waiting == 2)
        recognizer.gate.set()
        assert {(await task).status_code for task in (mine, theirs)} == {200}
        assert await state(KEY) == await state(OTHER) == "unknown"


@pytest.mark.parametrize(
    "headers", [{"authorization": f"Bearer {OTHER}"}, {"x-api-key": OTHER}, {"Authorization": f"bearer {KEY}"}]
)
async def test_requests_with_a_valid_key_are_served(new_app: Callable[..., FastAPI], headers: dict[str, str]) -> None:
    async with serving(new_app(api_keys=f"{KEY},{OTHER}")) as client:
        answer = await client.post("/recognize", content=wav(), headers={"content-type": "audio/wav", **headers})
        assert answer.status_code == 200


PAGES = ("/", "/docs", "/openapi.json", "/docs/assets/swagger-ui.css", "/docs/assets/initialiser.js")


@pytest.mark.parametrize("root_path", ["", "/emotion"])
@pytest.mark.parametrize(
    ("settings", "metrics", "pages"),
    [({}, 401, 200), ({"public_metrics": True, "public_pages": False}, 200, 401)],
)
async def test_public_paths_by_setting(
    new_app: Callable[..., FastAPI], root_path: str, settings: dict[str, bool], metrics: int, pages: int
) -> None:
    async with serving(new_app(api_keys=KEY, root_path=root_path, **settings)) as client:
        assert (await client.get(f"{root_path}/metrics")).status_code == metrics
        assert {(await client.get(root_path + path)).status_code for path in PAGES} == {pages}
        assert {(await client.get(root_path + path)).status_code for path in ("/livez", "/readyz")} == {200}
        assert (await client.get(f"{root_path}/models")).status_code == 401


async def test_without_keys_no_request_needs_one(client: httpx.AsyncClient) -> None:
    assert (await client.get("/models")).status_code == 200
    assert (await client.get("/metrics", headers={"authorization": "Bearer any"})).status_code == 200


async def test_refusals_are_counted_by_reason_and_route(
    new_app: Callable[..., FastAPI], registry: CollectorRegistry
) -> None:
    async with serving(new_app(api_keys=KEY, rate_limit=1, rate_burst=1)) as client:
        await client.post("/recognize")
        await client.get("/nothing", headers={"x-api-key": "wrong"})
        await client.get("/models", headers=BEARER)
        await client.get("/models", headers=BEARER)

    def rejected(reason: str) -> float | None:
        return registry.get_sample_value("ser_requests_rejected_total", {"reason": reason})

    assert (rejected("key_missing"), rejected("key_invalid"), rejected("rate_limited")) == (1, 1, 1)
    for route, method, code in (("/recognize", "POST", "401"), ("unmatched", "GET", "401"), ("/models", "GET", "429")):
        labels = {"route": route, "method": method, "code": code}
        assert registry.get_sample_value("ser_http_requests_total", labels) == 1


async def test_keys_are_never_exposed(
    new_app: Callable[..., FastAPI],
    recognizer: RecognizerDouble,
    registry: CollectorRegistry,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    app = new_app(api_keys=KEY)
    presented = "a-guess-0123456789"
    async with serving(app) as client:
        recognizer.faults.append(RuntimeError("crash"))
        crash = await client.post("/recognize", content=wav(), headers={"content-type": "audio/wav", **BEARER})
        refused = await client.get("/models", headers={"x-api-key": presented})
        document = await client.get("/openapi.json")
    assert crash.status_code == 500
    exposed = f"{crash.headers}{crash.text}{refused.headers}{refused.text}{document.text}{caplog.text}"
    exposed += generate_latest(registry).decode() + repr(app.state.services.settings)
    assert KEY not in exposed
    assert presented not in exposed


async def test_a_caller_over_its_rate_does_not_affect_others(
    new_app: Callable[..., FastAPI], recognizer: RecognizerDouble
) -> None:
    async with serving(new_app(api_keys=f"{KEY},{OTHER}", rate_limit=1, rate_burst=3)) as client:
        answers = [await client.get("/models", headers={"x-api-key": KEY}) for _ in range(5)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
        problem(answers[-1], 429, "rate_limited")
        assert 1 <= int(answers[-1].headers["retry-after"]) <= 60
        assert answers[0].headers["ratelimit-policy"] == '"requests";q=3;w=180'
        assert answers[0].headers["ratelimit"].startswith('"requests";r=2;t=')
        assert answers[-1].headers["ratelimit"].startswith('"requests";r=0;t=')
        # The same caller, whichever header carries its key, and whichever path it requests.
        problem(await client.post("/recognize", headers=BEARER), 429, "rate_limited")
        assert (await client.get("/models", headers={"x-api-key": OTHER})).status_code == 200
        # Requests without a key are not counted for any caller, and probes, which are public, are not counted at all.
        assert (await client.get("/models")).status_code == 401
        assert {(await client.get("/livez", headers=BEARER)).status_code for _ in range(9)} == {200}
    assert recognizer.most_permits == 0


async def test_without_keys_callers_are_identified_by_address(new_app: Callable[..., FastAPI]) -> None:
    app = new_app(rate_limit=1, rate_burst=2)

    async def ask(address: str, path: str) -> int:
        transport = httpx.ASGITransport(app, client=(address, 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return (await client.get(path)).status_code

    async with serving(app):
        assert [await ask("192.0.2.1", "/models") for _ in range(3)] == [200, 200, 429]
        assert await ask("192.0.2.2", "/models") == 200
        assert [await ask(f"2001:db8::{host}", "/models") for host in range(1, 4)] == [200, 200, 429]
        for path in ("/livez", "/metrics", "/", "/docs"):
            assert await ask("192.0.2.1", path) == 200


@pytest.mark.parametrize("size", [1000, 50_000_000])
@pytest.mark.parametrize("refusal", ["key_missing", "rate_limited"])
async def test_refusals_are_sent_before_the_body_is_read(
    new_app: Callable[..., FastAPI],
    recognizer: RecognizerDouble,
    refusal: str,
    size: int,
) -> None:
    """The refusal arrives before any byte of the body is sent, without `100 Continue`."""
    settings: dict[str, Any] = {"api_keys": KEY} if refusal == "key_missing" else {"rate_limit": 1, "rate_burst": 1}
    status = 401 if refusal == "key_missing" else 429
    async with listening(new_app(**settings)) as port, http_client(port) as client:
        if status == 429:
            assert (await client.get("/models")).status_code == 200
        async with connected(port) as connection:
            await connection.send(head(size).replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"))
            headers = await connection.problem(status, refusal)  # and no `100 Continue`
            if status == 429:
                assert 1 <= int(headers["retry-after"]) <= 60
            if size > 1_000_000:
                assert headers["connection"] == "close"
                assert await connection.closed() == b""
    assert recognizer.most_permits == 0


def with_socket(app: FastAPI) -> FastAPI:
    async def stream(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text("welcome")
        await websocket.close()

    app.add_api_websocket_route("/socket", stream)
    return app


async def websocket(app: FastAPI, headers: dict[str, str], *, denial: bool = True) -> list[dict[str, Any]]:
    """The messages that an application sends to a client that opens a WebSocket."""
    sent: list[dict[str, Any]] = []
    scope = {
        "type": "websocket",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "scheme": "ws",
        "path": "/socket",
        "raw_path": b"/socket",
        "query_string": b"",
        "subprotocols": [],
        "client": ("192.0.2.1", 1),
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "extensions": {"websocket.http.response": {}} if denial else {},
    }

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    async with asyncio.timeout(5):
        await app(scope, receive, send)
    return sent


async def test_websockets_need_a_key(new_app: Callable[..., FastAPI], registry: CollectorRegistry) -> None:
    app = with_socket(new_app(api_keys=KEY))
    refused = await websocket(app, {})
    assert (refused[0]["type"], refused[0]["status"]) == ("websocket.http.response.start", 401)
    assert b'"key_missing"' in refused[1]["body"]
    closed = await websocket(app, {"x-api-key": "wrong"}, denial=False)
    assert [(message["type"], message["code"]) for message in closed] == [("websocket.close", 1008)]
    welcomed = await websocket(app, {"x-api-key": KEY})
    assert [message["type"] for message in welcomed] == ["websocket.accept", "websocket.send", "websocket.close"]
    assert b"x-request-id" in dict(welcomed[0]["headers"])
    assert registry.get_sample_value("ser_requests_rejected_total", {"reason": "key_missing"}) == 1


async def test_websockets_are_rate_limited(new_app: Callable[..., FastAPI]) -> None:
    app = with_socket(new_app(rate_limit=1, rate_burst=1))
    assert (await websocket(app, {}))[0]["type"] == "websocket.accept"
    refused = await websocket(app, {})
    assert refused[0]["status"] == 429
    assert b"retry-after" in dict(refused[0]["headers"])


def test_the_openapi_document_describes_keys_and_rate_limits(new_app: Callable[..., FastAPI]) -> None:
    document = new_app(api_keys=KEY, rate_limit=1, public_metrics=True).openapi()
    schemes = document["components"]["securitySchemes"]
    assert {(scheme["type"], scheme.get("scheme"), scheme.get("name")) for scheme in schemes.values()} == {
        ("http", "bearer", None),
        ("apiKey", None, "X-API-Key"),
    }
    assert document["security"] == [{name: []} for name in schemes]
    assert document["paths"]["/metrics"]["get"]["security"] == []
    refusals = document["paths"]["/recognize"]["post"]["responses"]["429"]
    assert set(refusals["content"]["application/problem+json"]["examples"]) == {
        "queue_full",
        "caller_limit",
        "rate_limited",
    }
    assert "429" in document["paths"]["/models"]["get"]["responses"]
    assert "429" not in document["paths"]["/metrics"]["get"]["responses"]


def test_the_openapi_document_without_keys_and_rate_limits(new_app: Callable[..., FastAPI]) -> None:
    plain = new_app().openapi()
    assert "security" not in plain
    assert "securitySchemes" not in plain["components"]
    assert "401" not in plain["paths"]["/recognize"]["post"]["responses"]
