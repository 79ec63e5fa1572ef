"""`WS /stream`: live audio in, the emotions of each window, utterance and the whole out."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.websockets import WebSocket

from service.api.middleware.api_keys import SUBPROTOCOL
from service.api.middleware.security_headers import check_origin
from service.api.problems import ProblemResponse, problem_of, reported, retry_headers
from service.api.request_context import request_context, services
from service.api.stream.session import Session
from service.errors import OriginForbidden
from service.observability.metrics import STREAM_CLOSES

TURNS = 4
"""Clips of all streams that may be at the recognizer at a time, so that requests wait behind few of them."""

THREADS = 2
"""Threads that decode large messages."""

router = APIRouter()


@router.websocket("/stream")
async def stream(socket: WebSocket) -> None:
    """Serve one stream, or answer the request for it with a problem document."""
    parts = services(socket)
    context = request_context(socket.scope)
    try:
        check_origin(socket, parts.settings)
        with parts.recognizer.admit_stream() as draining:
            model = parts.core.loaded_model()
            await socket.accept(SUBPROTOCOL if SUBPROTOCOL in socket.scope["subprotocols"] else None)
            session = Session(socket, parts, model, context, draining)
            await session.run()
    except Exception as failure:
        if context.record.stream is not None:
            raise
        error = reported(failure, context)
        if isinstance(error, OriginForbidden):
            parts.metrics.requests_rejected.labels(error.code).inc()
        response = ProblemResponse(problem_of(error, context.id), retry_headers(error))
        await socket.send_denial_response(response)
    finally:
        if context.record.stream is not None:
            code = str(context.record.close_code)
            parts.metrics.streams.labels(code if code in STREAM_CLOSES else "other").inc()
