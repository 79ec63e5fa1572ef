"""How a call fails: the service said why (`Problem`), or nobody answered.

CallFailed
├── Problem                    an answer that is no success
└── Unreachable · Disconnected · TimedOut
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import httpx

if TYPE_CHECKING:
    from emotion2vec_client.types import FieldProblem


class CallFailed(Exception):
    """A call without an answer.

    Attributes:
        detail: what went wrong, for people.
        request_id: as in the server's log, should it have got there.
    """

    code = "failed"

    def __init__(self, detail: str, request_id: str) -> None:
        super().__init__(detail)
        self.detail = detail
        self.request_id = request_id


class Problem(CallFailed):
    """The server answered, but not with what was asked for.

    Attributes:
        status: the HTTP status.
        code: stable and for programs, as in the table of docs/api.md; that of a proxy's answer is made of its status.
        title: what kind of problem it is.
        errors: one entry for each bad option.
        retry_after: seconds after which the server takes calls again, where it says so.
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


class Unreachable(CallFailed):
    """No connection came about: the server cannot have seen the request."""

    code = "unreachable"


class Disconnected(CallFailed):
    """The connection ended before the answer did; the server may have worked on the request."""

    code = "disconnected"


class TimedOut(CallFailed):
    """The time allowed was over before the answer was there."""

    code = "timed_out"


@contextmanager
def named_failures(request_id: str) -> Iterator[None]:
    """Around everything that uses the connection: its errors become those of this module."""
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        raise Unreachable(f"No connection to the server: {error or type(error).__name__}", request_id) from error
    except httpx.TimeoutException as error:
        raise TimedOut("The server did not answer in time.", request_id) from error
    except (httpx.TransportError, httpx.StreamError, httpx.DecodingError) as error:
        detail = f"The connection ended before the answer: {error or type(error).__name__}"
        raise Disconnected(detail, request_id) from error
