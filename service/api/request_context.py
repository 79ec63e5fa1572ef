"""What every route needs: the parts of the application, and the request with what is recorded about it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import cast

from starlette.requests import HTTPConnection
from starlette.types import Scope

from service.inference.recognizer import Recognizer
from service.observability.metrics import Metrics
from service.recognition.core import Core, Progress
from service.recognition.live.stream import StreamCounts, StreamShare
from service.settings.settings import Settings

UNMATCHED = "unmatched"
"""The route of paths that no route serves: an attacker must not be able to make metric series or fill logs."""

CLIENT_GONE = 499
"""The status, as proxies count them, of requests whose client left before the answer."""

_SCOPE_KEY = "emotion2vec_service.request"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})


@dataclass(frozen=True, slots=True)
class Services:
    """The parts of the application that routes share.

    Attributes:
        core: recognises.
        settings: limits and paths.
        metrics: the Prometheus series.
        streams: what all streams share.
        requests: the progress of each recognition that is worked on, by the request's id.
    """

    core: Core
    settings: Settings
    metrics: Metrics
    streams: StreamShare
    requests: dict[str, Progress] = field(default_factory=dict)

    @property
    def recognizer(self) -> Recognizer:
        """What answers clips, and gives permits."""
        return self.core.recognizer


@dataclass(slots=True)
class RequestRecord:
    """What is found out about a request while it is served, for its line in the log.

    Attributes:
        files: how many it has brought, None before they have arrived.
        failed_files: how many of them have a problem of their own in the answer.
        file_names: what the client calls them, where they are to be logged.
        code: that of the problem which is the answer.
        outcome: the status of what came after the answer had begun with a 200: of the problem in its last line, or
            `CLIENT_GONE`; None if nothing failed.
        stream: the counts of a stream, None for other requests.
        close_code: the code with which a stream was closed.
    """

    files: int | None = None
    failed_files: int = 0
    file_names: list[str] = field(default_factory=list)
    code: str | None = None
    outcome: int | None = None
    stream: StreamCounts | None = None
    close_code: int | None = None


@dataclass(frozen=True, slots=True)
class RequestContext:
    """One request: its id, its arrival on the loop's clock, and the W3C trace that it belongs to, if any."""

    id: str
    arrival: float
    trace_id: str | None
    record: RequestRecord = field(default_factory=RequestRecord)
    progress: Progress = field(default_factory=Progress)


def services(request: HTTPConnection) -> Services:
    """The parts of the application that answers `request`."""
    return cast(Services, request.app.state.services)


@contextmanager
def show_progress(parts: Services, context: RequestContext) -> Iterator[None]:
    """Let `GET /requests/{id}` show the request while the context is open; of several with one id, the last."""
    parts.requests[context.id] = context.progress
    try:
        yield
    finally:
        if parts.requests.get(context.id) is context.progress:
            del parts.requests[context.id]


def put_request_context(scope: Scope, context: RequestContext) -> None:
    """Attach `context` to a request; the outermost middleware does."""
    scope[_SCOPE_KEY] = context


def request_context(scope: Scope) -> RequestContext:
    """The context of a request."""
    return cast(RequestContext, scope[_SCOPE_KEY])


def route_template(scope: Scope) -> str:
    """The template of the route that serves a request, never its path; known once the request is routed."""
    return getattr(scope.get("route"), "path_format", UNMATCHED)


def known_method(scope: Scope) -> str:
    """The method of a request; `other` for one that HTTP does not define."""
    method = scope.get("method", "GET")  # WebSockets, which have none, are opened by a GET
    return method if method in _METHODS else "other"


def can_deny(scope: Scope) -> bool:
    """Whether the server can answer the request for a WebSocket like any other request."""
    return "websocket.http.response" in scope.get("extensions", {})
