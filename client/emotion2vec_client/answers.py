"""From a response to its answer, its events, or the problem that it is."""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus
from typing import Any, cast

import httpx
import orjson

from emotion2vec_client.errors import Disconnected, Problem
from emotion2vec_client.retries import seconds_until
from emotion2vec_client.types import Event

_UNEXPECTED = "unexpected_answer"


def document_of(response: httpx.Response, request_id: str) -> Any:
    """The JSON of a response that has been read.

    Raises:
        Problem: if it is no JSON object: then something else answers at this address.
    """
    document = _json(response.content)
    if not isinstance(document, dict):
        raise _foreign(response.status_code, request_id)
    return document


def problem_of(response: httpx.Response, request_id: str) -> Problem:
    """The problem that a response is which has been read and is no success."""
    document = _json(response.content)
    retry_after = seconds_until(response.headers.get("Retry-After"))
    if isinstance(document, dict) and isinstance(document.get("code"), str):
        return problem_in(document, request_id, response.status_code, retry_after)
    phrase = response.reason_phrase or "no reason given"
    code = HTTPStatus(response.status_code).name.lower() if response.status_code in set(HTTPStatus) else _UNEXPECTED
    return Problem(
        f"The server, or a proxy before it, answered {response.status_code} ({phrase}) and did not say more.",
        request_id,
        status=response.status_code,
        code=code,
        title=phrase,
        errors=[],
        retry_after=retry_after,
    )


class Events:
    """The events in an answer that comes line by line.

    Raises from its methods:
        Problem: if the server gives up midway.
        Disconnected: if the answer ends before its result.
    """

    def __init__(self, request_id: str) -> None:
        self._request_id = request_id
        self._rest = b""
        self._finished = False

    def of(self, data: bytes) -> Iterator[Event]:
        """Those that are complete with the next bytes."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in filter(None, lines):
            yield self._event(line)

    def finish(self) -> None:
        """Make sure that the answer was whole."""
        if self._rest or not self._finished:
            raise Disconnected("The answer ended before its result.", self._request_id)

    def _event(self, line: bytes) -> Event:
        event = _json(line)
        if not isinstance(event, dict) or self._finished:
            raise _foreign(HTTPStatus.OK, self._request_id)
        kind = event.get("type")
        if kind == "problem":
            raise problem_in(event, self._request_id)
        self._finished = kind == "result"
        return cast(Event, event)


def problem_in(
    document: dict[str, Any], request_id: str, status: int = HTTPStatus.OK, retry_after: float | None = None
) -> Problem:
    """The problem that a problem document tells of.

    Args:
        document: it, of which anything may be missing.
        request_id: where it does not say.
        status: where it does not say.
        retry_after: seconds, where the response has said.
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


def _foreign(status: int, request_id: str) -> Problem:
    return Problem(
        "What came is no answer of this service; is the address right?",
        request_id,
        status=status,
        code=_UNEXPECTED,
        title="The answer is not the service's",
        errors=[],
    )


def _json(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
