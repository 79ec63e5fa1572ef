"""Builds the requests of the API, and repeats their attempts."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
from tenacity import retry_if_exception, stop_after_attempt, stop_before_delay

from emotion2vec_client.errors import TimedOut
from emotion2vec_client.retries import Retries, SharedDelay, is_retryable
from emotion2vec_client.uploads import File, UploadBody, form_body, raw_body
from emotion2vec_client.version import __version__

JSON = "application/json"
EVENTS = "application/x-ndjson"

_CONNECT_TIMEOUT = 10.0
_TRANSFER_SECONDS = 5.0
"""Seconds added to the server's timeout before the client gives up, for the response to arrive."""

_KEEPALIVE_SECONDS = 3.0
"""Idle connections are closed after this time, before the server closes them (5 s) while a request is being sent."""


LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=_KEEPALIVE_SECONDS)
"""Of the connections of one client."""


def connection_settings(url: str, api_key: str | None, timeout: float) -> dict[str, Any]:
    """Arguments for `httpx.Client` and `httpx.AsyncClient`.

    Args:
        url: the service's URL, with its path prefix if it has one.
        api_key: an API key, if the service requires one.
        timeout: seconds to wait for the next byte to be received or sent.

    Raises:
        ValueError: if the URL or the key is malformed.
    """
    try:
        address = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ValueError(f"the URL is not valid: {error}") from None
    if address.scheme not in ("http", "https") or not address.host:
        raise ValueError("the URL must begin with http:// or https:// and a host")
    headers = {"User-Agent": f"emotion2vec-client/{__version__}"}
    if api_key is not None:
        if not (api_key.isascii() and api_key.isprintable()):
            raise ValueError("the API key must consist of printable ASCII characters")
        headers["X-API-Key"] = api_key
    return {
        "base_url": address,
        "headers": headers,
        "timeout": httpx.Timeout(timeout, connect=_CONNECT_TIMEOUT, pool=None),
    }


@dataclass(frozen=True, slots=True)
class ApiRequest:
    """One request of the API, which may take several attempts.

    Attributes:
        params: the query parameters; options go there.
        timeout: seconds from now until the response must be complete, over all attempts; sent to the server, too.
        request_id: sent along and written to the server's log.
    """

    method: str
    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    body: UploadBody | None = None
    accept: str = JSON
    timeout: float | None = None
    request_id: str = field(default_factory=lambda: uuid.uuid4().hex)

    def __post_init__(self) -> None:
        if self.timeout is not None and not self.timeout > 0:
            raise ValueError("timeout must be more than zero seconds")


@contextmanager
def recognize_request(
    file: File, options: Mapping[str, object], *, accept: str = JSON, timeout: float | None, request_id: str | None
) -> Iterator[ApiRequest]:
    """The request for one file, which is open within the context."""
    with raw_body(file) as body:
        yield _post("/recognize", body, options, accept, timeout, request_id)


@contextmanager
def batch_request(
    files: Sequence[File], options: Mapping[str, object], *, timeout: float | None, request_id: str | None
) -> Iterator[ApiRequest]:
    """The request for several files, which are open within the context."""
    with form_body("files", files) as body:
        yield _post("/recognize/batch", body, options, JSON, timeout, request_id)


def _post(
    path: str,
    body: UploadBody,
    options: Mapping[str, object],
    accept: str,
    timeout: float | None,
    request_id: str | None,
) -> ApiRequest:
    params = {name: _query_value(value) for name, value in options.items() if value is not None}
    return ApiRequest("POST", path, params, body, accept, timeout, request_id or uuid.uuid4().hex)


def _query_value(value: object) -> str:
    """An option's value as text; the server validates it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ",".join(map(str, value))
    return str(value)


class Attempts:
    """The attempts of one request: when each is sent, and what it sends.

    Attributes:
        policy: arguments for tenacity's `Retrying` and `AsyncRetrying`.
    """

    def __init__(self, request: ApiRequest, retries: Retries, shared_delay: SharedDelay) -> None:
        self._request = request
        self._shared_delay = shared_delay
        self._began = time.monotonic()
        self._seconds = retries.seconds if request.timeout is None else min(retries.seconds, request.timeout)
        self.policy: dict[str, Any] = {
            "retry": retry_if_exception(lambda error: is_retryable(error, idempotent=request.method == "GET")),
            "wait": shared_delay.before_retry,
            "stop": stop_after_attempt(retries.attempts) | stop_before_delay(self._seconds),
            "reraise": True,
        }

    def delay(self) -> float:
        """Seconds to wait before the next attempt, because the server asked this client to wait after any request.

        Raises:
            Problem: if the request may not take as long.
        """
        return self._shared_delay.seconds(self._began + self._seconds - time.monotonic(), self._request.request_id)

    def build(
        self, http: httpx.Client | httpx.AsyncClient, content: Iterator[bytes] | AsyncIterator[bytes] | None
    ) -> httpx.Request:
        """The httpx request of the next attempt.

        Raises:
            TimedOut: if the request's timeout is over.
        """
        request = self._request
        params = dict(request.params)
        timeout = http.timeout
        if request.timeout is not None:
            left = request.timeout - (time.monotonic() - self._began)
            if left <= 0:
                raise TimedOut("The timeout was over before the request was sent.", request.request_id)
            params["timeout"] = f"{left:.3f}"
            timeout = httpx.Timeout(left + _TRANSFER_SECONDS, connect=min(left, _CONNECT_TIMEOUT), pool=None)
        headers = {"Accept": request.accept, "X-Request-ID": request.request_id}
        if request.body is not None:
            headers |= request.body.headers
        return http.build_request(
            request.method, request.path, params=params, headers=headers, content=content, timeout=timeout
        )
