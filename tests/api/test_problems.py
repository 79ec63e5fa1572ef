from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import httpx
import pytest
from fastapi import FastAPI, HTTPException
from starlette.responses import Response

from service import errors
from service.api.problems import problem_of, problem_response, status_of
from service.errors import ServiceError, SetupError
from tests.api.answers import check_problem, fields, problem
from tests.api.conftest import serving


def classes(root: type[ServiceError]) -> Iterator[type[ServiceError]]:
    yield root
    for child in root.__subclasses__():
        yield from classes(child)


STATUSES = {
    errors.MalformedRequest: 400,
    errors.MalformedBody: 400,
    errors.Unauthorized: 401,
    errors.KeyMissing: 401,
    errors.KeyInvalid: 401,
    errors.OriginForbidden: 403,
    errors.HostForbidden: 403,
    errors.UploadTimeout: 408,
    errors.StreamIdle: 408,
    errors.SlowConsumer: 408,
    errors.BodyTooLarge: 413,
    errors.AudioTooLong: 413,
    errors.MessageTooLarge: 413,
    errors.NotDecodable: 415,
    errors.UnsupportedMediaType: 415,
    errors.UnsupportedContentEncoding: 415,
    errors.InvalidRequest: 422,
    errors.InvalidMessage: 422,
    errors.InvalidOptions: 422,
    errors.AudioError: 422,
    errors.AudioEmpty: 422,
    errors.AudioTooShort: 422,
    errors.AudioTruncated: 422,
    errors.AudioNotFinite: 422,
    errors.QueueFull: 429,
    errors.CallerLimit: 429,
    errors.RateLimited: 429,
    errors.TooManyStreams: 429,
    errors.HeadersTooLarge: 431,
    errors.Refused: 503,
    errors.Unavailable: 503,
    errors.ModelLoading: 503,
    errors.Draining: 503,
    errors.StorageFull: 503,
    errors.DecoderUnavailable: 503,
    errors.StorageUnwritable: 503,
    errors.WorkerDead: 503,
    errors.DeadlineExceeded: 504,
    errors.InferenceFailed: 500,
    errors.BackendBroken: 500,
    errors.ServiceError: 500,
}


@pytest.mark.parametrize("error", sorted(set(classes(ServiceError)), key=str))
def test_every_error_has_its_status_and_a_document(error: type[ServiceError]) -> None:
    status = STATUSES.get(error, 500)
    assert status_of(error) == status
    document = problem_of(error("For the client."), "id-1")
    # The details of internal errors and of failed starts are not shown to clients.
    hidden = error is ServiceError or issubclass(error, SetupError)
    check_problem(dict(document), status, ServiceError.code if hidden else error.code)
    assert ("For the client" in document["detail"]) is not hidden
    assert document["request_id"] == "id-1"


def test_the_expected_statuses_are_complete() -> None:
    assert set(STATUSES) | set(classes(SetupError)) == set(classes(ServiceError))


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "malformed_body"),
        (404, "not_found"),
        (405, "method_not_allowed"),
        (413, "body_too_large"),
        (418, "im_a_teapot"),
        (502, "bad_gateway"),
    ],
)
async def test_error_statuses_of_the_framework(new_app: Callable[..., FastAPI], status: int, code: str) -> None:
    app = new_app()

    async def raised() -> None:
        raise HTTPException(status, "secret", {"X-Kept": "1"})

    async def returned() -> Response:
        return Response("secret", status)

    app.add_api_route("/raised", raised)
    app.add_api_route("/returned", returned)
    async with serving(app) as client:
        for path in ("/raised", "/returned"):
            response = await client.get(path)
            problem(response, status, code)
            assert "secret" not in response.text
            assert ("x-kept" in response.headers) is (path == "/raised")


@pytest.mark.parametrize(("seconds", "header"), [(0.0, "1"), (0.3, "1"), (1.0, "1"), (1.2, "2"), (30.0, "30")])
def test_retry_after_is_a_whole_number_of_at_least_one(seconds: float, header: str) -> None:
    assert problem_response(errors.QueueFull("Full.", seconds), "id-1").headers["retry-after"] == header
    assert "retry-after" not in problem_response(errors.DeadlineExceeded("Late."), "id-1").headers


@pytest.mark.parametrize("path", ["/nope", "/recognize/", "/docs/assets/nope", "/docs/assets/..%2f__init__.py", "/%00"])
async def test_unknown_paths(client: httpx.AsyncClient, path: str) -> None:
    problem(await client.get(path), 404, "not_found")


@pytest.mark.parametrize("path", ["/", "/livez", "/readyz", "/models", "/metrics", "/docs", "/openapi.json"])
async def test_wrong_methods(client: httpx.AsyncClient, path: str) -> None:
    response = await client.post(path)
    problem(response, 405, "method_not_allowed")
    assert response.headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize("path", ["/recognize", "/recognize/batch"])
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS", "BREW"])
async def test_wrong_methods_of_recognition(client: httpx.AsyncClient, path: str, method: str) -> None:
    response = await client.request(method, path)
    problem(response, 405, "method_not_allowed")
    assert response.headers["allow"] == "POST"


async def test_validation_by_the_framework(new_app: Callable[..., FastAPI]) -> None:
    app = new_app()

    async def route(number: int) -> int:
        return number

    app.add_api_route("/declared", route)
    async with serving(app) as client:
        assert (await client.get("/declared?number=1")).json() == 1
        document = problem(await client.get("/declared?number=x"), 422, "invalid_options")
        assert fields(document) == {"number": "invalid"}


async def test_a_crash_outside_of_the_inference(
    new_app: Callable[..., FastAPI], caplog: pytest.LogCaptureFixture
) -> None:
    app = new_app()

    async def route() -> None:
        raise RuntimeError("secret")

    app.add_api_route("/crash", route)
    async with serving(app) as client:
        document = problem(await client.get("/crash"), 500, "internal_error")
    assert "secret" not in json.dumps(document)
    assert any(record.exc_info for record in caplog.records)
