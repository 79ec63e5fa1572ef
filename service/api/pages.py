"""The pages for people: `/` and `/docs`. Nothing in them comes from elsewhere, so they work offline."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.staticfiles import StaticFiles

_ASSETS = "/docs/assets"

# The package `fastapi-swagger` carries Swagger UI's files; its code is not used.
_swagger_ui = StaticFiles(packages=[("fastapi_swagger", "resources")])

_LANDING = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>emotion2vec-service</title>
<h1>emotion2vec-service</h1>
<p>Speech emotion recognition over HTTP: <code>POST recognize</code> with an audio file.</p>
<ul><li><a href="docs">API</a><li><a href="models">Model</a>
<li><a href="readyz">Ready?</a><li><a href="metrics">Metrics</a></ul>
</html>
"""

router = APIRouter(include_in_schema=False)
docs_router = APIRouter(include_in_schema=False)


@router.get("/")
async def landing() -> HTMLResponse:
    """A few links."""
    return HTMLResponse(_LANDING)


@docs_router.get("/docs")
async def docs(request: Request) -> HTMLResponse:
    """Swagger UI."""
    prefix = _prefix(request)
    return get_swagger_ui_html(
        openapi_url=f"{prefix}/openapi.json",
        title=request.app.title,
        swagger_js_url=f"{prefix}{_ASSETS}/swagger-ui-bundle.js",
        swagger_css_url=f"{prefix}{_ASSETS}/swagger-ui.css",
        swagger_favicon_url=f"{prefix}{_ASSETS}/favicon-32x32.png",
    )


@docs_router.get("/openapi.json")
async def openapi(request: Request) -> JSONResponse:
    """The description that `/docs` shows."""
    prefix = _prefix(request)
    return JSONResponse({**request.app.openapi(), **({"servers": [{"url": prefix}]} if prefix else {})})


@docs_router.get(_ASSETS + "/{path:path}")
async def docs_asset(request: Request, path: str) -> Response:
    """One of Swagger UI's files."""
    return await _swagger_ui.get_response(path, request.scope)


def _prefix(request: Request) -> str:
    """Where a reverse proxy shows the service."""
    return str(request.scope.get("root_path", "")).rstrip("/")
