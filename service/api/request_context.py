"""What every route needs: the shared parts of the application, and the context of its request."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Annotated, cast

from fastapi import Depends
from starlette.requests import HTTPConnection
from starlette.types import Scope

from service.observability.metrics import Metrics
from service.recognition.core import Core, Progress
from service.recognition.live.stream import StreamCounts, StreamShare
from service.settings.settings import Settings

CLIENT_GONE = 499
"""The status that proxies use for requests whose client disconnected before the response."""

REQUEST_CONTEXT = "emotion2vec_service.request"
"""The key of the `RequestContext` in an ASGI scope, put there by `RequestMiddleware`."""


@dataclass(frozen=True, slots=True)
class Services:
    """The parts of the application that routes share.

    Attributes:
        core: the recognition core.
        settings: limits and paths.
        metrics: the Prometheus metrics.
        streams: the semaphore and the threads that all streams share.
        requests: the progress of each running recognition, by the owner of its key and its id.
    """

    core: Core
    settings: Settings
    metrics: Metrics
    streams: StreamShare
    requests: dict[tuple[str | None, str], Progress] = field(default_factory=dict)


@dataclass(slots=True)
class RequestContext:
    """One request, and what is recorded about it for its log line.

    Attributes:
        id: the request id.
        arrival: on the event loop's clock, in seconds.
        trace_id: of the W3C trace that the request belongs to, None without one.
        key_owner: a name for the owner of its API key, None without one.
        progress: how far the recognition is.
        files: the number of uploaded files, None until they have arrived.
        failed_files: how many of them have a problem of their own in the answer.
        file_names: their names as sent by the client, if the settings ask to log them.
        code: of the problem that was answered.
        outcome: the status of what followed after the response had begun with 200: that of the problem in its last
            line, or `CLIENT_GONE`; None if nothing failed.
        stream: the counts of a stream, None for other requests.
        close_code: with which a stream was closed.
    """

    id: str
    arrival: float
    trace_id: str | None
    key_owner: str | None = None
    progress: Progress = field(default_factory=Progress)
    files: int | None = None
    failed_files: int = 0
    file_names: list[str] = field(default_factory=list)
    code: str | None = None
    outcome: int | None = None
    stream: StreamCounts | None = None
    close_code: int | None = None


def services(request: HTTPConnection) -> Services:
    """The shared parts of the application that serves `request`."""
    return cast(Services, request.app.state.services)


@contextmanager
def show_progress(parts: Services, context: RequestContext) -> Iterator[None]:
    """Let `GET /requests/{id}` show the request to its caller; of several with one id, the last."""
    request = context.key_owner, context.id
    parts.requests[request] = context.progress
    try:
        yield
    finally:
        if parts.requests.get(request) is context.progress:
            del parts.requests[request]


async def _until_sent() -> AsyncIterator[ExitStack]:
    with ExitStack() as resources:
        yield resources


UntilSent = Annotated[ExitStack, Depends(_until_sent)]
"""The parameter of a route for what is released only after the response was sent, or the route has failed."""


def request_context(scope: Scope) -> RequestContext:
    """The context of a request."""
    return cast(RequestContext, scope[REQUEST_CONTEXT])


def can_deny(scope: Scope) -> bool:
    """Whether the server can answer the opening request of a WebSocket with an HTTP response."""
    return "websocket.http.response" in scope.get("extensions", {})
