"""The pages for people: `/` (the files in `service/page`) and `/docs`.

Nothing in them comes from elsewhere, so they work offline. All of the page's addresses are relative, so that it works
behind a proxy; its files lie under a version of their own, so that browsers may keep them for ever.
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

_ASSETS = "/docs/assets"

# The package `fastapi-swagger` carries Swagger UI's files; its code is not used.
_swagger_ui = StaticFiles(packages=[("fastapi_swagger", "resources"), ("service.data", "swagger")])

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

_PAGE = Path(__file__).resolve().parents[2] / "page"

# What a system guesses from its own tables is not the same everywhere, and browsers refuse scripts of other types.
_MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".flac": "audio/flac",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".wav": "audio/wav",
}

_NO_MODULES = ("vendor/", "saved-theme", "microphone-worklet")
"""Scripts that the page loads later or otherwise than as modules of its own."""

page_router = APIRouter(include_in_schema=False)
docs_router = APIRouter(include_in_schema=False)


@page_router.get("/")
async def page(request: Request) -> Response:
    """The page to try the service with."""
    docs = services(request).settings.docs
    etag = f'"{await asyncio.to_thread(_version)}-{docs:d}"'
    headers = {"Cache-Control": "no-cache", "ETag": etag}
    if request.headers.get("if-none-match") == etag:
        return Response(status_code=304, headers=headers)
    return HTMLResponse(await asyncio.to_thread(_index, docs), headers=headers)


@page_router.get("/page/{version}/{path:path}")
async def page_file(version: str, path: str) -> Response:
    """One of the page's files, or a bundled clip."""
    content = (await asyncio.to_thread(_files)).get(path)
    if content is None:
        raise HTTPException(404)
    # While a new version is rolled out, a page of the other one may ask: it gets what there is, and must not keep it.
    lasting = version == _version()
    caching = "public, max-age=31536000, immutable" if lasting else "no-cache"
    media_type = _MEDIA_TYPES.get(Path(path).suffix, "text/plain; charset=utf-8")
    return Response(content, headers={"Cache-Control": caching, "Content-Type": media_type})


@cache
def _files() -> dict[str, bytes]:
    """The page's files and the clips under `examples/`, some 900 kB, by their paths."""
    roots = ((_PAGE, ""), (EXAMPLES, "examples/"))
    return {
        prefix + path.relative_to(root).as_posix(): path.read_bytes()
        for root, prefix in roots
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


@cache
def _version() -> str:
    """Changes with every change of a file."""
    digest = hashlib.sha256()
    for path, content in _files().items():
        digest.update(path.encode() + b"\0" + content)
    return digest.hexdigest()[:16]


@cache
def _index(docs: bool) -> str:
    assets = f"page/{_version()}"
    # Modules are found one by one as each is read; this lets the browser ask for all of them at once.
    modules = [path for path in _files() if path.endswith(".js") and not path.startswith(_NO_MODULES)]
    preloads = "".join(f'  <link rel="modulepreload" href="{assets}/{path}">\n' for path in modules)
    template = Template(_files()["index.html"].decode())
    return template.substitute(assets=assets, preloads=preloads, docs_hidden="" if docs else "hidden")


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
