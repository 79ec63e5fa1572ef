"""`WS /stream`: the emotions of each window, each utterance and the whole of live audio."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.websockets import WebSocket

from service.api.callers import caller_of
from service.api.middleware.api_keys import SUBPROTOCOL
from service.api.middleware.security_headers import check_origin
from service.api.request_context import request_context, services
from service.api.stream.session import Session
from service.errors import OriginForbidden
from service.observability.metrics import STREAM_CLOSES

TURNS = 4
"""Clips of all streams that may be queued or running at a time, so that requests wait behind few of them."""

THREADS = 2
"""Threads that decode large messages of all streams."""

router = APIRouter()


@router.websocket("/stream")
async def stream(socket: WebSocket) -> None:
    """Serve one stream.

    Raises:
        ServiceError: if the stream is refused; nothing was sent then, so the exception handlers answer.
    """
    parts = services(socket)
    context = request_context(socket.scope)
    try:
        check_origin(socket, parts.settings)
    except OriginForbidden as error:
        parts.metrics.requests_rejected.labels(error.code).inc()
        raise
    with parts.core.recognizer.admit_stream(caller_of(socket.scope)) as draining:
        model = parts.core.loaded_model()
        await socket.accept(SUBPROTOCOL if SUBPROTOCOL in socket.scope["subprotocols"] else None)
        try:
            await Session(socket, parts, model, context, draining).run()
        finally:
            code = str(context.close_code)
            parts.metrics.streams.labels(code if code in STREAM_CLOSES else "other").inc()
