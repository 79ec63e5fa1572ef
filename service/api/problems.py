"""Errors as RFC 9457 problem documents: the only module that maps exception classes to HTTP statuses."""

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

from service import errors
from service.api.request_context import RequestContext, can_deny, request_context, services
from service.api.schemas import FieldProblem, Problem
from service.errors import FieldError, InferenceFailed, InvalidOptions, Refused, ServiceError

logger = logging.getLogger(__name__)

PROBLEM_TYPE = "urn:emotion2vec-service:problem:"
"""The prefix of `type`; the error's code follows."""

PROBLEM_MEDIA_TYPE = "application/problem+json"
PROBLEM_SCHEMA = "#/components/schemas/Problem"
"""The schema in the OpenAPI document, where `service.api.openapi` puts it."""

STATUSES: Mapping[type[ServiceError], int] = {
    errors.MalformedRequest: 400,
    errors.MalformedBody: 400,
    errors.Unauthorized: 401,
    errors.OriginForbidden: 403,
    errors.HostForbidden: 403,
    errors.UploadTimeout: 408,
    errors.StreamIdle: 408,
    errors.SlowConsumer: 408,
    errors.BodyTooLarge: 413,
    errors.MessageTooLarge: 413,
    errors.AudioTooLong: 413,
    errors.NotDecodable: 415,
    errors.UnsupportedMediaType: 415,
    errors.UnsupportedContentEncoding: 415,
    errors.InvalidRequest: 422,
    errors.QueueFull: 429,
    errors.CallerLimit: 429,
    errors.RateLimited: 429,
    errors.TooManyStreams: 429,
    errors.HeadersTooLarge: 431,
    errors.Refused: 503,
    errors.StorageUnwritable: 503,
    errors.DeadlineExceeded: 504,
    errors.ServiceError: 500,
}
"""The HTTP status of each error class; a class that is not listed has that of its nearest ancestor."""

_FRAMEWORK_DETAILS = {
    404: "Nothing is served at this path.",
    405: "The path does not support this method; the Allow header names those that it does.",
}

_POLICY_VIOLATION = 1008
_EXAMPLE_ID = "5f0c1f0be4a24b0e8f3c8a7d1d2e9a11"


class ProblemResponse(Response):
    """A response with a problem document."""

    media_type = PROBLEM_MEDIA_TYPE

    def __init__(self, problem: Problem, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(orjson.dumps(problem), problem["status"], headers)
        self._code = problem["code"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response, and record its code for the log line and the trace."""
        request_context(scope).code = self._code
        get_current_span().set_attribute("problem.code", self._code)
        await super().__call__(scope, receive, send)


def status_of(error: type[ServiceError]) -> int:
    """The HTTP status of an error class."""
    return next(STATUSES[cls] for cls in error.__mro__ if cls in STATUSES)


def problem_of(error: ServiceError, request_id: str) -> Problem:
    """The document for `error`; that of an internal error does not contain the cause."""
    if not _is_public(error):
        detail = "Something unexpected happened; the service's log has it under this request id."
        return _document(500, ServiceError.code, ServiceError.title, detail, request_id)
    fields = error.errors if isinstance(error, InvalidOptions) else ()
    return _document(status_of(type(error)), error.code, error.title, error.detail, request_id, fields)


def problem_response(error: ServiceError, request_id: str, headers: Mapping[str, str] | None = None) -> ProblemResponse:
    """The response for `error`.

    It has `headers`, `Retry-After` in whole seconds, at least one, if a retry can succeed, and `Accept-Encoding` if the
    body was compressed (RFC 9110, section 15.5.16).
    """
    headers = dict(headers or {})
    if isinstance(error, errors.UnsupportedContentEncoding):
        headers["Accept-Encoding"] = "identity"
    if isinstance(error, Refused):
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    return ProblemResponse(problem_of(error, request_id), headers)


async def refuse(
    error: ServiceError, scope: Scope, receive: Receive, send: Send, headers: Mapping[str, str] | None = None
) -> None:
    """Answer a request, or the opening request of a WebSocket, from a middleware."""
    if scope["type"] == "websocket" and not can_deny(scope):
        await send({"type": "websocket.close", "code": _POLICY_VIOLATION})
    else:
        await problem_response(error, request_context(scope).id, headers)(scope, receive, send)


def problem_of_status(status: int, request: HTTPConnection) -> Problem:
    """The document for an error response of the framework, which has no `ServiceError`."""
    request_id = request_context(request.scope).id
    if status == HTTPStatus.BAD_REQUEST:
        return problem_of(errors.MalformedBody("The request could not be parsed."), request_id)
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        limit = services(request).settings.max_body_bytes
        return problem_of(errors.BodyTooLarge(f"The body has more than {limit} bytes."), request_id)
    meaning = HTTPStatus(status)
    detail = _FRAMEWORK_DETAILS.get(status, f"{meaning.phrase}.")
    return _document(status, meaning.name.lower(), meaning.phrase, detail, request_id)


def reported(error: Exception, context: RequestContext) -> ServiceError:
    """`error` as the client may see it; an internal error is logged and replaced by a plain `ServiceError`."""
    if isinstance(error, ServiceError) and _is_public(error):
        return error
    logger.error(
        "request %s failed unexpectedly",
        context.id,
        exc_info=error,
        extra={"request_id": context.id, "trace_id": context.trace_id},
    )
    return ServiceError("See the log.")


async def answer_service_error(request: HTTPConnection, error: ServiceError) -> Response:
    """Handle a `ServiceError` that a route raised before its response or the acceptance of its WebSocket."""
    context = request_context(request.scope)
    return problem_response(reported(error, context), context.id)


async def answer_http_exception(request: Request, error: HTTPException) -> Response:
    """Handle an error of the framework: an unknown path or method, or a body over the limit."""
    headers = dict(error.headers or {})
    if headers.get("Allow") == "GET":
        headers["Allow"] = "GET, HEAD"  # see service.api.middleware.requests
    return ProblemResponse(problem_of_status(error.status_code, request), headers)


async def answer_validation_error(request: Request, error: RequestValidationError) -> Response:
    """Handle an error of FastAPI's validation of declared parameters."""
    names = [".".join(str(part) for part in each["loc"][1:]) for each in error.errors()]
    fields = [FieldError(name, "is missing or not valid", "invalid") for name in names]
    return await answer_service_error(request, InvalidOptions("The request does not fit its description.", fields))


def documented(*kinds: type[ServiceError]) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI `responses` of a route that can raise `kinds`: one example for each, grouped by status."""
    responses: dict[int | str, dict[str, Any]] = {}
    for error in kinds:
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
        if issubclass(error, errors.UnsupportedContentEncoding):
            response["headers"] = {
                "Accept-Encoding": {
                    "description": f"With `{error.code}`",
                    "schema": {"type": "string", "const": "identity"},
                }
            }
        if issubclass(error, Refused):
            response["headers"] = {
                "Retry-After": {"description": "Seconds", "schema": {"type": "integer", "minimum": 1}}
            }
    return dict(sorted(responses.items()))


def _is_public(error: ServiceError) -> bool:
    # Of the errors with status 500, only this one has a detail that is meant for clients.
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
