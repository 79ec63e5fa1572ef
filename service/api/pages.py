"""The pages for people: `/` and `/docs`. Nothing in them comes from elsewhere, so they work offline."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.staticfiles import StaticFiles

_ASSETS = "/docs/assets"

# The package `fastapi-swagger` carries Swagger UI's files; its code is not used.
_swagger_ui = StaticFiles(packages=[("fastapi_swagger", "resources"), ("service.api", "swagger")])

# FastAPI's own page starts Swagger UI by a script in the page, which our Content-Security-Policy forbids. Addresses are
# relative, so that they are right behind a reverse proxy as well.
_DOCS = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>emotion2vec-service: API</title>
<link rel="stylesheet" href="docs/assets/swagger-ui.css">
<link rel="icon" href="docs/assets/favicon-32x32.png">
<div id="swagger-ui"></div>
<script src="docs/assets/swagger-ui-bundle.js"></script>
<script src="docs/assets/initialiser.js"></script>
</html>
"""

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
async def docs() -> HTMLResponse:
    """Swagger UI."""
    return HTMLResponse(_DOCS)


@docs_router.get("/openapi.json")
async def openapi(request: Request) -> JSONResponse:
    """The description that `/docs` shows."""
    prefix = str(request.scope.get("root_path", "")).rstrip("/")  # where a reverse proxy shows the service
    return JSONResponse({**request.app.openapi(), **({"servers": [{"url": prefix}]} if prefix else {})})


@docs_router.get(_ASSETS + "/{path:path}")
async def docs_asset(request: Request, path: str) -> Response:
    """One of Swagger UI's files."""
    return await _swagger_ui.get_response(path, request.scope)
