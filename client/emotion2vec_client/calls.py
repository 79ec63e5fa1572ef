"""What is sent for each kind of call, and how one call goes through its attempts."""

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
from emotion2vec_client.files import Body, File, form_body, raw_body
from emotion2vec_client.retries import Pace, Retries, may_be_repeated
from emotion2vec_client.version import __version__

JSON = "application/json"
EVENTS = "application/x-ndjson"

_CONNECT_SECONDS = 10.0
_ON_THE_WAY = 5.0
"""Seconds that an answer may come after the time in which the server was to make it."""

_IDLE_SECONDS = 3.0
"""After which an idle connection is given up: before the server does so (5 s), and takes a call down with it."""


def connection_settings(url: str, api_key: str | None, silence: float) -> dict[str, Any]:
    """What both kinds of httpx client are made with.

    Args:
        url: where the service is, with its path prefix if it has one.
        api_key: a key of the service, if it asks for one.
        silence: seconds that the server may take for the next byte, or to read one.

    Raises:
        ValueError: if the URL is none, or the key cannot be in a header.
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
            raise ValueError("the API key has characters that no header can carry")
        headers["X-API-Key"] = api_key
    return {
        "base_url": address,
        "headers": headers,
        "timeout": httpx.Timeout(silence, connect=_CONNECT_SECONDS, pool=None),
        "limits": httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=_IDLE_SECONDS),
    }


@dataclass(frozen=True, slots=True)
class Call:
    """One call, whatever number of requests it takes.

    Attributes:
        params: the query, where options go.
        timeout: seconds from now in which the answer must be there, over all attempts; the server is told, too.
        request_id: sent along, and to be found in the server's log.
    """

    method: str
    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    body: Body | None = None
    accept: str = JSON
    timeout: float | None = None
    request_id: str = field(default_factory=lambda: uuid.uuid4().hex)

    def __post_init__(self) -> None:
        if self.timeout is not None and not self.timeout > 0:
            raise ValueError("timeout must be more than zero seconds")


@contextmanager
def recognition(
    file: File, options: Mapping[str, object], *, accept: str = JSON, timeout: float | None, request_id: str | None
) -> Iterator[Call]:
    """The call for one file, which is open meanwhile."""
    with raw_body(file) as body:
        yield _post("/recognize", body, options, accept, timeout, request_id)


@contextmanager
def batch(
    files: Sequence[File], options: Mapping[str, object], *, timeout: float | None, request_id: str | None
) -> Iterator[Call]:
    """The call for several files, which are open meanwhile."""
    with form_body("files", files) as body:
        yield _post("/recognize/batch", body, options, JSON, timeout, request_id)


def _post(
    path: str,
    body: Body,
    options: Mapping[str, object],
    accept: str,
    timeout: float | None,
    request_id: str | None,
) -> Call:
    params = {name: _text(value) for name, value in options.items() if value is not None}
    return Call("POST", path, params, body, accept, timeout, request_id or uuid.uuid4().hex)


def _text(value: object) -> str:
    """An option's value as a query has it. Whether it is a good one is for the server to say."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ",".join(map(str, value))
    return str(value)


class Attempts:
    """One call's way through its attempts: when each may be made, and what it sends."""

    def __init__(self, call: Call, retries: Retries, pace: Pace) -> None:
        self._call = call
        self._pace = pace
        self._began = time.monotonic()
        self._seconds = retries.seconds if call.timeout is None else min(retries.seconds, call.timeout)
        self.policy: dict[str, Any] = {
            "retry": retry_if_exception(self._may_be_repeated),
            "wait": pace.wait,
            "stop": stop_after_attempt(retries.attempts) | stop_before_delay(self._seconds),
            "reraise": True,
        }
        """For tenacity."""

    def pause(self) -> float:
        """Seconds to wait before the next attempt, because the server asked this client, by whatever call, to wait.

        Raises:
            Problem: if the call may not take as long.
        """
        return self._pace.pause(self._began + self._seconds - time.monotonic(), self._call.request_id)

    def request(
        self, http: httpx.Client | httpx.AsyncClient, content: Iterator[bytes] | AsyncIterator[bytes] | None
    ) -> httpx.Request:
        """The next attempt's request.

        Raises:
            TimedOut: if the time for the answer is over.
        """
        call = self._call
        params = dict(call.params)
        timeout = http.timeout
        if call.timeout is not None:
            left = call.timeout - (time.monotonic() - self._began)
            if left <= 0:
                raise TimedOut("The time was over before the server could be asked.", call.request_id)
            params["timeout"] = f"{left:.3f}"
            timeout = httpx.Timeout(left + _ON_THE_WAY, connect=min(left, _CONNECT_SECONDS), pool=None)
        headers = {"Accept": call.accept, "X-Request-ID": call.request_id}
        if call.body is not None:
            headers |= call.body.headers
        return http.build_request(
            call.method, call.path, params=params, headers=headers, content=content, timeout=timeout
        )

    def _may_be_repeated(self, error: BaseException) -> bool:
        return may_be_repeated(error, changes_nothing=self._call.method == "GET")
