"""The web page at `/` (the files in `service/page`) and the API documentation at `/docs`.

Both load files of this service only, so they work offline. All URLs of the page are relative, so that it works behind a
reverse proxy. Its files are served under a path with their version, so that browsers can cache them for a year.
"""

from __future__ import annotations

import asyncio
import hashlib
from functools import cache
from pathlib import Path
from string import Template

from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.staticfiles import StaticFiles

from service.api.request_context import services
from service.data import EXAMPLES

# The package `fastapi-swagger` contains the files of Swagger UI; its code is not used.
_swagger_ui = StaticFiles(packages=[("fastapi_swagger", "resources"), ("service.data", "swagger")])

# FastAPI's own page starts Swagger UI with an inline script, which the Content-Security-Policy forbids.
_DOCS = Path(__file__).resolve().parents[2] / "data" / "docs.html"

_PAGE = Path(__file__).resolve().parents[2] / "page"

# Not from `mimetypes`, whose tables depend on the system: browsers reject scripts with another type.
_MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".flac": "audio/flac",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".wav": "audio/wav",
}

_NOT_PRELOADED = ("vendor/", "saved-theme.js", "live/microphone-worklet.js")
"""Scripts that are not modules, or that the page loads only when it needs them."""

page_router = APIRouter(include_in_schema=False)
docs_router = APIRouter(include_in_schema=False)


@page_router.get("/")
async def page(request: Request) -> Response:
    """The web page."""
    docs = services(request).settings.docs
    etag = f'"{await asyncio.to_thread(_version)}-{docs:d}"'
    headers = {"Cache-Control": "no-cache", "ETag": etag}
    if request.headers.get("if-none-match") == etag:
        return Response(status_code=304, headers=headers)
    return HTMLResponse(await asyncio.to_thread(_index, docs), headers=headers)


@page_router.get("/page/{version}/{path:path}")
async def page_file(version: str, path: str) -> Response:
    """A file of the page, or a bundled clip."""
    content = (await asyncio.to_thread(_files)).get(path)
    if content is None:
        raise HTTPException(404)
    # During a rollout, a page of another version may request a file: it gets the current one, which must not be cached.
    current = version == _version()
    caching = "public, max-age=31536000, immutable" if current else "no-cache"
    media_type = _MEDIA_TYPES.get(Path(path).suffix, "text/plain; charset=utf-8")
    return Response(content, headers={"Cache-Control": caching, "Content-Type": media_type})


@cache
def _files() -> dict[str, bytes]:
    """The files of the page, and the bundled clips under `examples/`, by path; about 900 kB."""
    roots = ((_PAGE, ""), (EXAMPLES, "examples/"))
    return {
        prefix + path.relative_to(root).as_posix(): path.read_bytes()
        for root, prefix in roots
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


@cache
def _version() -> str:
    """A digest of all paths and contents."""
    digest = hashlib.sha256()
    for path, content in _files().items():
        digest.update(path.encode() + b"\0" + content)
    return digest.hexdigest()[:16]


@cache
def _index(docs: bool) -> str:
    assets = f"page/{_version()}"
    # Browsers find imported modules only as they parse each module; preload links let them request all at once.
    modules = [path for path in _files() if path.endswith(".js") and not path.startswith(_NOT_PRELOADED)]
    preloads = "".join(f'  <link rel="modulepreload" href="{assets}/{path}">\n' for path in modules)
    template = Template(_files()["index.html"].decode())
    return template.substitute(assets=assets, preloads=preloads, docs_hidden="" if docs else "hidden")


@docs_router.get("/docs")
async def docs() -> HTMLResponse:
    """Swagger UI."""
    return HTMLResponse(await asyncio.to_thread(_DOCS.read_text, "utf-8"))


@docs_router.get("/openapi.json")
async def openapi(request: Request) -> JSONResponse:
    """The OpenAPI document that `/docs` shows."""
    prefix = str(request.scope.get("root_path", "")).rstrip("/")  # the path under which a reverse proxy serves the API
    return JSONResponse({**request.app.openapi(), **({"servers": [{"url": prefix}]} if prefix else {})})


@docs_router.get("/docs/assets/{path:path}")
async def docs_asset(request: Request, path: str) -> Response:
    """A file of Swagger UI."""
    return await _swagger_ui.get_response(path, request.scope)
