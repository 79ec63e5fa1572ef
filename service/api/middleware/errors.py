"""Middleware that answers every failure with a problem document."""

from __future__ import annotations

import asyncio
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from service.api.problems import PROBLEM_MEDIA_TYPE, ProblemResponse, problem_of_status, problem_response, reported
from service.api.request_context import can_deny, request_context
from service.errors import Draining


class ErrorMiddleware:
    """Answers what no exception handler handled: crashes, cancellation at shutdown, and error responses of FastAPI.

    The latter are the plain 413 of FastAPI's `max_body_size`, which replaces the response of a route whose request
    declares too long a body, and the refusal of a WebSocket on an unknown path.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        context = request_context(scope)
        started = replaced = False

        async def send_problems(message: Message) -> None:
            nonlocal started, replaced
            status = None if started else _framework_error(message, scope)
            started = True
            if status is not None:
                replaced = True
                await ProblemResponse(problem_of_status(status, HTTPConnection(scope)))(scope, receive, send)
            if not replaced:
                await send(message)

        try:
            await self.app(scope, receive, send_problems)
        except (ClientDisconnect, WebSocketDisconnect):
            raise
        except asyncio.CancelledError:
            # The server cancels the remaining requests at the end of its grace period.
            if not started:
                error = Draining("The service is shutting down; another instance will answer.")
                await problem_response(error, context.id)(scope, receive, send)
            raise
        except Exception as exc:
            response = problem_response(reported(exc, context), context.id)
            if started:
                raise  # the server aborts the connection, so that the client does not take the response for complete
            await response(scope, receive, send)


def _framework_error(message: Message, scope: Scope) -> int | None:
    """The status if this first message begins an error response that is not a problem document."""
    if message["type"] == "websocket.close":
        return HTTPStatus.NOT_FOUND if can_deny(scope) else None
    if message["type"] != "http.response.start" or message["status"] < HTTPStatus.BAD_REQUEST:
        return None
    media_type = Headers(raw=list(message["headers"])).get("content-type")
    return None if media_type == PROBLEM_MEDIA_TYPE else message["status"]
