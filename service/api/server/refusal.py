"""Problem documents for requests that a protocol refuses before the application sees them."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from http import HTTPStatus

import orjson
from websockets.datastructures import Headers
from websockets.http11 import Response

from service.api.problems import PROBLEM_MEDIA_TYPE, problem_of
from service.errors import ServiceError


def refusal(error: ServiceError, headers: Iterable[tuple[str, str]] = ()) -> Response:
    """A whole HTTP response with the problem document of `error` and a new request id; it closes the connection."""
    problem = problem_of(error, uuid.uuid4().hex)
    body = orjson.dumps(problem)
    status = HTTPStatus(problem["status"])
    all_headers = Headers(
        [
            *headers,
            ("Content-Type", PROBLEM_MEDIA_TYPE),
            ("Content-Length", str(len(body))),
            ("X-Request-ID", problem["request_id"]),
            ("Connection", "close"),
        ]
    )
    return Response(status.value, status.phrase, all_headers, body)
