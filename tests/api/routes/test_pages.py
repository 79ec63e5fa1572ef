from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urljoin

import httpx
import pytest
from fastapi import FastAPI

from tests.api.answers import problem
from tests.api.conftest import serving

ROOT = Path(__file__).resolve().parents[3]


def links_of(page: httpx.Response) -> list[str]:
    return re.findall(r'(?:href|src)="([^"#]+)"', page.text)


@pytest.mark.parametrize("root_path", ["", "/emotion"])
async def test_all_links_of_the_page_are_served(new_app: Callable[..., FastAPI], root_path: str) -> None:
    async with serving(new_app(), root_path) as client:
        page = await client.get(f"{root_path}/")
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        links = links_of(page)
        assert len(links) > 30
        for link in links:
            assert not link.startswith(("/", "http")), "a proxy may serve the page under any path"
            # Proxies may remove the prefix or pass it on.
            assert (await client.get(f"/{link}")).status_code == 200
            assert (await client.get(f"{root_path}/{link}")).status_code == 200


async def test_all_modules_are_preloaded(client: httpx.AsyncClient) -> None:
    preloaded = {link.partition("/")[2].partition("/")[2] for link in links_of(await client.get("/"))}
    directory = ROOT / "service" / "page"
    modules = {path.relative_to(directory).as_posix() for path in directory.rglob("*.js")}
    # Loaded only for scores over time and for live audio.
    assert modules - preloaded == {"vendor/uplot/uPlot.esm.js", "live/microphone-worklet.js"}


async def test_the_page_is_revalidated_and_its_files_are_cached(client: httpx.AsyncClient) -> None:
    page = await client.get("/")
    assert page.headers["cache-control"] == "no-cache"
    again = await client.get("/", headers={"If-None-Match": page.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert (await client.get("/", headers={"If-None-Match": '"other"'})).status_code == 200
    script = next(link for link in links_of(page) if link.endswith("/main.js"))
    cached = await client.get(f"/{script}")
    assert "immutable" in cached.headers["cache-control"]
    other_version = await client.get(re.sub("/[0-9a-f]{16}/", "/0123456789abcdef/", f"/{script}"))
    assert (other_version.content, other_version.headers["cache-control"]) == (cached.content, "no-cache")


@pytest.mark.parametrize(
    ("path", "media_type"),
    [
        ("main.js", "text/javascript; charset=utf-8"),
        ("style/theme.css", "text/css; charset=utf-8"),
        ("icon.svg", "image/svg+xml"),
        ("examples.json", "application/json"),
        ("examples/happy.wav", "audio/wav"),
        ("examples/sad.flac", "audio/flac"),
        ("vendor/uplot/LICENSE", "text/plain; charset=utf-8"),
    ],
)
async def test_files_have_the_right_media_type(client: httpx.AsyncClient, path: str, media_type: str) -> None:
    response = await client.get(f"/page/any/{path}")
    assert (response.status_code, response.headers["content-type"]) == (200, media_type)


@pytest.mark.parametrize("path", ["nothing.js", "", "../pages.py", "%2e%2e/api/pages.py", "/etc/passwd", "style"])
async def test_other_paths_are_not_found(client: httpx.AsyncClient, path: str) -> None:
    problem(await client.get(f"/page/any/{path}"), 404, "not_found")


async def test_the_page_has_a_strict_content_security_policy(client: httpx.AsyncClient) -> None:
    page = await client.get("/")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert re.findall(r"<style|\sstyle=|\son[a-z]+=|<script>|javascript:", page.text) == []
    styles = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "service/page").rglob("*.css"))
    assert re.findall(r"@import|url\(", styles) == []


async def test_the_page_can_be_disabled(new_app: Callable[..., FastAPI]) -> None:
    async with serving(new_app(page=False)) as client:
        problem(await client.get("/"), 404, "not_found")
        problem(await client.get("/page/any/main.js"), 404, "not_found")
        assert (await client.get("/docs")).status_code == 200


def test_the_vendored_chart_library_is_the_locked_version() -> None:
    lock = json.loads((ROOT / "tools/page/package-lock.json").read_text(encoding="utf-8"))
    version = lock["packages"]["node_modules/uplot"]["version"]
    vendored = ROOT / "service/page/vendor/uplot"
    assert f"(v{version})" in (vendored / "uPlot.esm.js").read_text(encoding="utf-8")[:400]
    assert "MIT License" in (vendored / "LICENSE").read_text(encoding="utf-8")


@pytest.mark.parametrize("root_path", ["", "/emotion"])
async def test_the_docs_load_files_of_this_service_only(new_app: Callable[..., FastAPI], root_path: str) -> None:
    async with serving(new_app(), root_path) as client:
        page = await client.get("/docs")
        start = (await client.get("/docs/assets/initialiser.js")).text
        links = re.findall(r"""(?:href=|src=|url: )["']([^"']+)["']""", page.text + start)
        assert len(links) == 5
        assert "//" not in "".join(links)
        for link in (urljoin(f"{root_path}/docs", link) for link in links):
            assert link.startswith(root_path + "/")
            # Proxies may remove the prefix or pass it on.
            assert (await client.get(link.removeprefix(root_path))).status_code == 200
            assert (await client.get(link)).status_code == 200
        document = (await client.get("/openapi.json")).json()
        assert document.get("servers") == ([{"url": root_path}] if root_path else None)


async def test_the_docs_can_be_disabled(new_app: Callable[..., FastAPI]) -> None:
    async with serving(new_app(docs=False)) as client:
        for path in ("/docs", "/openapi.json", "/docs/assets/swagger-ui.css"):
            problem(await client.get(path), 404, "not_found")
        page = await client.get("/")
        assert page.status_code == 200
        assert re.search(r'<a href="docs"[^>]* hidden>', page.text)
