"""Middleware that lets every failure leave as a problem document."""

from __future__ import annotations

import asyncio
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.problems import ProblemResponse, problem_of, problem_of_status, reported, retry_headers
from service.api.request_context import can_deny, request_context
from service.errors import Draining, ServiceError


class ErrorMiddleware:
    """Turns what no exception handler took into problem documents: crashes, shutdown, and the framework's own errors.

    Among the latter is the plain 413 of FastAPI's `max_body_size`, which replaces the answer of a route whose
    request declares too long a body.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "websocket":
            await self._serve_socket(scope, receive, send)
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        context = request_context(scope)
        started = replaced = False

        async def send_problems(message: Message) -> None:
            nonlocal started, replaced
            if message["type"] == "http.response.start":
                started = True
                replaced = message["status"] >= 400 and not _is_problem(message)
                if replaced:
                    response = ProblemResponse(problem_of_status(message["status"], Request(scope)))
                    await response(scope, receive, send)
            if not replaced:
                await send(message)

        async def fail(error: ServiceError) -> None:
            if not started:
                await ProblemResponse(problem_of(error, context.id), retry_headers(error))(scope, receive, send)

        try:
            await self.app(scope, receive, send_problems)
        except ClientDisconnect:
            raise
        except asyncio.CancelledError:
            # The server cancels what is still running when its grace period is over.
            await fail(Draining("The service is shutting down; another instance will answer."))
            raise
        except Exception as exc:
            error = reported(exc, context)
            if started:
                raise  # the server cuts the connection, so that half an answer is not taken for a whole one
            await fail(error)

    async def _serve_socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 404 for a WebSocket on any other path; `/stream` sends its problems itself."""
        accepted = False

        async def send_problems(message: Message) -> None:
            nonlocal accepted
            accepted = accepted or message["type"] == "websocket.accept"
            if message["type"] == "websocket.close" and not accepted and can_deny(scope):
                await ProblemResponse(problem_of_status(HTTPStatus.NOT_FOUND, HTTPConnection(scope)))(
                    scope, receive, send
                )
            else:
                await send(message)

        await self.app(scope, receive, send_problems)


def _is_problem(message: Message) -> bool:
    return Headers(raw=list(message["headers"])).get("content-type") == ProblemResponse.media_type
