"""Parse responses: a JSON document, a series of events, or a problem."""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus
from typing import Any, cast

import httpx
import orjson

from emotion2vec_client.errors import Disconnected, Problem
from emotion2vec_client.retries import parse_retry_after
from emotion2vec_client.types import Event

_UNEXPECTED = "unexpected_answer"


def json_document(response: httpx.Response, request_id: str) -> dict[str, Any]:
    """The JSON object in a response whose body has been read.

    Raises:
        Problem: if the body is not a JSON object, so that another server must have sent it.
    """
    document = _parse_json(response.content)
    if not isinstance(document, dict):
        raise _not_from_the_service(response.status_code, request_id)
    return document


def problem_from_response(response: httpx.Response, request_id: str) -> Problem:
    """The problem that an unsuccessful response describes; its body must have been read.

    A response without a problem document (a proxy's error page, for example) gets a `code` made of its status.
    """
    document = _parse_json(response.content)
    retry_after = parse_retry_after(response.headers.get("Retry-After"))
    if isinstance(document, dict) and isinstance(document.get("code"), str):
        return problem_from_document(document, request_id, response.status_code, retry_after)
    phrase = response.reason_phrase or "no reason given"
    code = HTTPStatus(response.status_code).name.lower() if response.status_code in set(HTTPStatus) else _UNEXPECTED
    return Problem(
        f"The server, or a proxy before it, answered {response.status_code} ({phrase}) without further details.",
        request_id,
        status=response.status_code,
        code=code,
        title=phrase,
        errors=[],
        retry_after=retry_after,
    )


class EventParser:
    """Parses the lines of an `application/x-ndjson` response into events, from pieces of any size.

    Raises from its methods:
        Problem: if the server reports a problem, or a line is not an event.
        Disconnected: if the response ends before the result.
    """

    def __init__(self, request_id: str) -> None:
        self._request_id = request_id
        self._incomplete_line = b""
        self._finished = False

    def feed(self, data: bytes) -> Iterator[Event]:
        """The events that are complete after the next bytes."""
        *lines, self._incomplete_line = (self._incomplete_line + data).split(b"\n")
        for line in filter(None, lines):
            yield self._event(line)

    def finish(self) -> None:
        """Check that the response ended with its result."""
        if self._incomplete_line or not self._finished:
            raise Disconnected("The response ended before its result.", self._request_id)

    def _event(self, line: bytes) -> Event:
        event = _parse_json(line)
        if not isinstance(event, dict) or self._finished:
            raise _not_from_the_service(HTTPStatus.OK, self._request_id)
        kind = event.get("type")
        if kind == "problem":
            raise problem_from_document(event, self._request_id)
        self._finished = kind == "result"
        return cast(Event, event)


def problem_from_document(
    document: dict[str, Any], request_id: str, status: int = HTTPStatus.OK, retry_after: float | None = None
) -> Problem:
    """The problem that a problem document describes.

    Args:
        document: the problem document; any of its members may be missing.
        request_id: used if the document has none.
        status: used if the document has none.
        retry_after: seconds from the Retry-After header, if there was one.
    """
    errors = document.get("errors")
    return Problem(
        str(document.get("detail", "")),
        str(document.get("request_id", request_id)),
        status=given if isinstance(given := document.get("status"), int) else status,
        code=str(document.get("code", _UNEXPECTED)),
        title=str(document.get("title", "")),
        errors=errors if isinstance(errors, list) else [],
        retry_after=retry_after,
    )


def _not_from_the_service(status: int, request_id: str) -> Problem:
    return Problem(
        "The response does not come from this service; check the URL.",
        request_id,
        status=status,
        code=_UNEXPECTED,
        title="Unexpected response",
        errors=[],
    )


def _parse_json(data: bytes) -> Any:
    """The value, or None if `data` is not JSON."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
