"""What every route needs: the parts of the application, and who is asking since when, for what."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import cast

from opentelemetry.trace import Tracer
from starlette.requests import HTTPConnection
from starlette.types import Scope

from service.inference.recognizer import Recognizer
from service.inference.segment_permits import SegmentPermits
from service.observability.metrics import Metrics
from service.recognition.cache import AnswerCache
from service.recognition.progress import ProgressBoard
from service.results import Timings
from service.settings.settings import Settings

UNMATCHED = "unmatched"
"""The route of paths that no route serves: an attacker must not be able to make metric series or fill logs."""

CLIENT_GONE = 499
"""The status, as proxies count them, of requests whose caller left before the answer."""

_SCOPE_KEY = "emotion2vec_service.request"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})


@dataclass(frozen=True, slots=True)
class StreamShare:
    """What all streams share: `turns` at the recognizer, first come first served, and threads of their own.

    Long uploads keep the other threads busy for seconds, which live audio cannot wait.
    """

    turns: asyncio.Semaphore
    pool: ThreadPoolExecutor


@dataclass(frozen=True, slots=True)
class Services:
    """The parts that routes share.

    `pool` decodes uploads and builds large answers, `cache` is None where it is off, `tracer` makes spans,
    `segment_permits` are what requests with granularity segment need beside that of the recognizer.
    """

    recognizer: Recognizer
    settings: Settings
    metrics: Metrics
    pool: ThreadPoolExecutor
    cache: AnswerCache | None
    tracer: Tracer
    streams: StreamShare
    segment_permits: SegmentPermits
    progress: ProgressBoard = field(default_factory=ProgressBoard)


@dataclass(slots=True)
class StreamNotes:
    """What a stream has come to: how it was closed, and how many windows and utterances were answered or left out."""

    close_code: int | None = None
    windows: int = 0
    skipped_windows: int = 0
    utterances: int = 0


@dataclass(slots=True)
class Notes:
    """What is found out about a request on its way, for its line in the log.

    Attributes:
        files: how many it has brought, None before they have arrived.
        failed_files: how many of them have a problem of their own in the answer.
        file_names: what the client calls them, where they are to be logged.
        audio_seconds: how much audio they decoded to, None if none did.
        timings: what the stages took, any number of times; the longest counts.
        code: that of the problem which is the answer.
        stream: what became of it, where it is one.
        segments: how many were answered, None with any other granularity.
        outcome: the status of what came after the answer had begun with a 200: of the problem in its last line, or
            `CLIENT_GONE`; None where all went well.
    """

    files: int | None = None
    failed_files: int = 0
    file_names: list[str] = field(default_factory=list)
    audio_seconds: float | None = None
    timings: list[Timings] = field(default_factory=list)
    code: str | None = None
    stream: StreamNotes | None = None
    segments: int | None = None
    outcome: int | None = None


@dataclass(frozen=True, slots=True)
class RequestContext:
    """One request: its id, its arrival on the loop's clock, and the W3C trace that it belongs to, if any."""

    id: str
    arrival: float
    trace_id: str | None
    notes: Notes = field(default_factory=Notes)


def services(request: HTTPConnection) -> Services:
    """The parts of the application that answers `request`."""
    return cast(Services, request.app.state.services)


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
    """The method of a request, `other` where HTTP knows no such method."""
    method = scope.get("method", "GET")  # as the one with which WebSockets are opened
    return method if method in _METHODS else "other"


def can_deny(scope: Scope) -> bool:
    """Whether the server can answer the request for a WebSocket like any other request."""
    return "websocket.http.response" in scope.get("extensions", {})
