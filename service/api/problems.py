"""Errors as RFC 9457 problem documents: the one place where exception classes become HTTP statuses."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import orjson
from fastapi.exceptions import RequestValidationError
from opentelemetry.trace import get_current_span
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.api.request_context import RequestContext, request_context, services
from service.api.schemas import FieldProblem, Problem
from service.errors import (
    AudioTooLong,
    BodyTooLarge,
    DeadlineExceeded,
    FieldError,
    HeadersTooLarge,
    InferenceFailed,
    InvalidOptions,
    InvalidRequest,
    MalformedBody,
    MalformedRequest,
    MessageTooLarge,
    NotDecodable,
    OriginForbidden,
    QueueFull,
    RateLimited,
    Refused,
    ServiceError,
    SlowConsumer,
    StreamIdle,
    TooManyStreams,
    Unauthorized,
    UnsupportedMediaType,
    UploadTimeout,
)

logger = logging.getLogger(__name__)

PROBLEM_TYPE = "urn:emotion2vec-service:problem:"
"""What `type` begins with; the error's code follows."""

PROBLEM_MEDIA_TYPE = "application/problem+json"
PROBLEM_SCHEMA = "#/components/schemas/Problem"
"""Where the OpenAPI document has it; `service.api.openapi` puts it there."""

STATUSES: Mapping[type[ServiceError], int] = {
    MalformedRequest: 400,
    MalformedBody: 400,
    Unauthorized: 401,
    OriginForbidden: 403,
    UploadTimeout: 408,
    StreamIdle: 408,
    SlowConsumer: 408,
    BodyTooLarge: 413,
    MessageTooLarge: 413,
    AudioTooLong: 413,
    NotDecodable: 415,
    UnsupportedMediaType: 415,
    InvalidRequest: 422,
    QueueFull: 429,
    RateLimited: 429,
    TooManyStreams: 429,
    HeadersTooLarge: 431,
    Refused: 503,
    DeadlineExceeded: 504,
    ServiceError: 500,
}
"""The status of each class; a class that is not listed has that of its nearest ancestor."""

_FOREIGN_DETAILS = {
    404: "Nothing is served at this path.",
    405: "The path does not support this method; the Allow header names those that it does.",
}

_EXAMPLE_ID = "5f0c1f0be4a24b0e8f3c8a7d1d2e9a11"


class ProblemResponse(Response):
    """A problem document as the answer."""

    media_type = PROBLEM_MEDIA_TYPE

    def __init__(self, problem: Problem, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(orjson.dumps(problem), problem["status"], headers)
        self._code = problem["code"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it, and note its code for log and trace."""
        request_context(scope).record.code = self._code
        get_current_span().set_attribute("problem.code", self._code)
        await super().__call__(scope, receive, send)


def status_of(error: type[ServiceError]) -> int:
    """The HTTP status of an error class."""
    return next(STATUSES[cls] for cls in error.__mro__ if cls in STATUSES)


def problem_of(error: ServiceError, request_id: str) -> Problem:
    """The document for `error`. An error that no client can mend says nothing of its cause."""
    told = _is_told(error)
    errors = error.errors if isinstance(error, InvalidOptions) else ()
    return _document(
        status_of(type(error)),
        error.code if told else ServiceError.code,
        error.title if told else ServiceError.title,
        error.detail if told else "Something unexpected happened; the service's log has it under this request id.",
        request_id,
        errors,
    )


def problem_of_status(status: int, request: HTTPConnection) -> Problem:
    """The document for an answer that the framework made without one of our errors."""
    request_id = request_context(request.scope).id
    if status == HTTPStatus.BAD_REQUEST:
        return problem_of(MalformedBody("The request could not be parsed."), request_id)
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        limit = services(request).settings.max_body_bytes
        return problem_of(BodyTooLarge(f"The body has more than {limit} bytes."), request_id)
    meaning = HTTPStatus(status)
    detail = _FOREIGN_DETAILS.get(status, f"{meaning.phrase}.")
    return _document(status, meaning.name.lower(), meaning.phrase, detail, request_id)


def retry_headers(error: ServiceError) -> dict[str, str]:
    """`Retry-After` in whole seconds, at least one, for errors that pass."""
    return {"Retry-After": str(max(1, math.ceil(error.retry_after)))} if isinstance(error, Refused) else {}


def reported(error: Exception, context: RequestContext) -> ServiceError:
    """`error` as the client may see it; what it may not see goes to the log."""
    if isinstance(error, ServiceError) and _is_told(error):
        return error
    logger.error(
        "request %s failed unexpectedly",
        context.id,
        exc_info=error,
        extra={"request_id": context.id, "trace_id": context.trace_id},
    )
    return ServiceError("See the log.")


async def answer_service_error(request: Request, error: ServiceError) -> Response:
    """Handle any `ServiceError` that a route raised."""
    context = request_context(request.scope)
    return ProblemResponse(problem_of(reported(error, context), context.id), retry_headers(error))


async def answer_http_exception(request: Request, error: HTTPException) -> Response:
    """Handle what the framework raises itself: unknown paths and methods, bodies over the limit."""
    return ProblemResponse(problem_of_status(error.status_code, request), error.headers)


async def answer_validation_error(request: Request, error: RequestValidationError) -> Response:
    """Handle FastAPI's own validation of declared parameters."""
    names = [".".join(str(part) for part in each["loc"][1:]) for each in error.errors()]
    fields = [FieldError(name, "is missing or not valid", "invalid") for name in names]
    return await answer_service_error(request, InvalidOptions("The request does not fit its description.", fields))


def documented(*errors: type[ServiceError]) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI `responses` of a route that can end in `errors`: one example for each, grouped by status."""
    responses: dict[int | str, dict[str, Any]] = {}
    for error in errors:
        fields = [FieldError("granularity", "must be one of utterance, frame, segment", "invalid")]
        detail = (error.__doc__ or "").partition("\n")[0]
        example = _document(status_of(error), error.code, error.title, detail, _EXAMPLE_ID)
        if issubclass(error, InvalidOptions):
            example = problem_of(error(f"{fields[0].field} {fields[0].message}.", fields), _EXAMPLE_ID)
        response = responses.setdefault(
            status_of(error), {"content": {PROBLEM_MEDIA_TYPE: {"schema": {"$ref": PROBLEM_SCHEMA}, "examples": {}}}}
        )
        examples = response["content"][PROBLEM_MEDIA_TYPE]["examples"]
        examples[error.code] = {"summary": error.title, "value": example}
        response["description"] = ", ".join(f"`{code}`" for code in examples)
        if issubclass(error, Refused):
            response["headers"] = {
                "Retry-After": {"description": "Seconds", "schema": {"type": "integer", "minimum": 1}}
            }
    return dict(sorted(responses.items()))


def _is_told(error: ServiceError) -> bool:
    # Of the errors that end in a 500, only this one has a text that is meant for clients.
    return status_of(type(error)) != HTTPStatus.INTERNAL_SERVER_ERROR or isinstance(error, InferenceFailed)


def _document(
    status: int, code: str, title: str, detail: str, request_id: str, errors: Sequence[FieldError] = ()
) -> Problem:
    return {
        "type": PROBLEM_TYPE + code,
        "title": title,
        "status": status,
        "detail": detail,
        "code": code,
        "request_id": request_id,
        "errors": [FieldProblem(field=e.field, message=e.message, kind=e.kind) for e in errors],
    }
