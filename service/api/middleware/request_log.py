"""One line in the log for each request, written after its answer has left."""

from __future__ import annotations

import logging
from dataclasses import asdict
from http import HTTPStatus
from time import perf_counter
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.request_context import CLIENT_GONE, RequestContext, known_method, request_context, route_template
from service.api.routes.health import PROBES
from service.observability.metrics import STAGES
from service.recognition.answers import longest

logger = logging.getLogger(__name__)

_DIGITS = 6


_STATUSES = ("http.response.start", "websocket.http.response.start")


class AccessLogMiddleware:
    """Logs what came of a request or a stream: what was answered, how long the stages took; never what was in it.

    Probes and scrapes are left out: they come every few seconds and would bury the rest.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "lifespan" or not logger.isEnabledFor(logging.INFO):
            await self.app(scope, receive, send)
            return
        context = request_context(scope)
        status: int = CLIENT_GONE
        began = perf_counter()  # the loop's clock is coarse

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] in _STATUSES:
                status = message["status"]
            elif message["type"] == "websocket.accept":
                status = HTTPStatus.SWITCHING_PROTOCOLS
            await send(message)

        try:
            await self.app(scope, receive, send_and_note)
        finally:
            if route_template(scope) not in PROBES:
                kind = "request" if context.notes.stream is None else "stream"
                logger.info(kind, extra=_fields(scope, context, status, perf_counter() - began))


def _fields(scope: Scope, context: RequestContext, status: int, seconds: float) -> dict[str, Any]:
    notes = context.notes
    fields = {
        "request_id": context.id,
        "trace_id": context.trace_id,
        "method": known_method(scope),
        "route": route_template(scope),
        "status": notes.outcome or status,
        "code": notes.code,
        "seconds": round(seconds, _DIGITS),
        "files": notes.files,
        "failed_files": notes.failed_files or None,
        "file_names": notes.file_names or None,
        "segments": notes.segments,
        "audio_seconds": None if notes.audio_seconds is None else round(notes.audio_seconds, _DIGITS),
    }
    if notes.stream is not None:
        fields |= asdict(notes.stream)
    if notes.timings:
        spent = longest(notes.timings)
        # A stage that took no time at all was never reached.
        fields |= {f"{stage}_seconds": round(getattr(spent, stage), _DIGITS) or None for stage in STAGES}
    return {name: value for name, value in fields.items() if value is not None}
