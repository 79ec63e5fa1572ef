"""How a request fails: the server reported a problem, or there was no complete response.

RequestFailed
├── Problem                    the server answered with an error
└── Unreachable · Disconnected · TimedOut
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import httpx

if TYPE_CHECKING:
    from emotion2vec_client.types import FieldProblem


class RequestFailed(Exception):
    """A request failed.

    Attributes:
        detail: what went wrong, as a sentence.
        request_id: the request's ID in the server's log, if it arrived there.
    """

    code = "failed"

    def __init__(self, detail: str, request_id: str) -> None:
        super().__init__(detail)
        self.detail = detail
        self.request_id = request_id


class Problem(RequestFailed):
    """The server, or a proxy before it, answered with an error.

    Attributes:
        status: the HTTP status.
        code: a stable name for programs, from the table in docs/api.md; made of the status if a proxy answered.
        title: the kind of problem.
        errors: one entry for each invalid option.
        retry_after: seconds after which the server accepts requests again, if it says so.
    """

    def __init__(
        self,
        detail: str,
        request_id: str,
        *,
        status: int,
        code: str,
        title: str,
        errors: list[FieldProblem],
        retry_after: float | None = None,
    ) -> None:
        super().__init__(detail, request_id)
        self.status = status
        self.code = code
        self.title = title
        self.errors = errors
        self.retry_after = retry_after

    def __str__(self) -> str:
        return f"{self.status} {self.code}: {self.detail}"


class Unreachable(RequestFailed):
    """No connection could be opened: the server has not seen the request."""

    code = "unreachable"


class Disconnected(RequestFailed):
    """The connection ended before the response did; the server may have processed the request."""

    code = "disconnected"


class TimedOut(RequestFailed):
    """There was no response within the timeout."""

    code = "timed_out"


@contextmanager
def translate_httpx_errors(request_id: str) -> Iterator[None]:
    """Raise httpx's errors as those of this module."""
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError) as error:
        raise Unreachable(f"No connection to the server: {error or type(error).__name__}", request_id) from error
    except httpx.TimeoutException as error:
        raise TimedOut("The server did not answer in time.", request_id) from error
    except (httpx.TransportError, httpx.StreamError, httpx.DecodingError) as error:
        detail = f"The connection ended before the response: {error or type(error).__name__}"
        raise Disconnected(detail, request_id) from error
