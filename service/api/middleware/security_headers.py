"""Headers for browsers: what the service's pages may do, and which other origins may call the service."""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import OriginForbidden
from service.settings.settings import Settings

_POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self' data: blob:",
    "font-src": "'self'",
    "connect-src": "'self'",
    "media-src": "'self' blob:",  # to play a recording before it is sent
    "worker-src": "'self'",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
}

PAGE_HEADERS = {
    "Content-Security-Policy": "; ".join(f"{name} {sources}" for name, sources in _POLICY.items()),
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=(), display-capture=(), payment=(), usb=()",
}
"""For HTML only: other responses cannot run scripts."""

_PORTS = {"http": ":80", "https": ":443"}

_EXPOSED_HEADERS = (
    "RateLimit",
    "RateLimit-Policy",
    "Retry-After",
    "Server-Timing",
    "WWW-Authenticate",
    "X-Cache",
    "X-Request-ID",
    "traceparent",
)
"""Response headers that scripts of allowed origins may read."""


class SecurityHeadersMiddleware:
    """Forbids browsers to guess content types, and pages to load or connect to anything but this service."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["X-Content-Type-Options"] = "nosniff"
                if headers.get("content-type", "").startswith("text/html"):
                    headers.update(PAGE_HEADERS)
            await send(message)

        await self.app(scope, receive, send_with_headers)


def check_origin(connection: HTTPConnection, settings: Settings) -> None:
    """Check that a WebSocket is opened by a program, a page of this service, or a page of one of `cors_origins`.

    CORS does not apply to WebSockets: without this check, any page could connect from its visitor's browser to a
    service that only the visitor's machine reaches, and read the answers.

    Raises:
        OriginForbidden: if a page of another origin opens it.
    """
    origin = connection.headers.get("origin")
    if origin is None or origin in settings.cors_origins:  # browsers always send it
        return
    scheme, _, host = origin.partition("://")
    port = _PORTS.get(scheme)
    if port is None or host.removesuffix(port) != connection.headers.get("host", "").lower().removesuffix(port):
        raise OriginForbidden("Pages of this origin may not open streams; `cors_origins` names those that may.")


def cross_origin(settings: Settings) -> list[Middleware]:
    """The CORS middleware for the origins in `cors_origins`; none where the setting is empty."""
    if not settings.cors_origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=("GET", "POST"),
            allow_headers=("Authorization", "Cache-Control", "X-API-Key", "X-Request-ID", "traceparent", "tracestate"),
            expose_headers=_EXPOSED_HEADERS,
        )
    ]
