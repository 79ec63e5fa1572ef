from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import urljoin

import httpx
import pytest
from fastapi import FastAPI

from tests.api.answers import problem
from tests.api.conftest import serving


async def test_the_landing_page_links_to_what_is_there(client: httpx.AsyncClient) -> None:
    page = await client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    links = re.findall(r'href="([^"]+)"', page.text)
    assert len(links) >= 3
    for link in links:
        assert (await client.get(f"/{link}")).status_code == 200


@pytest.mark.parametrize("root_path", ["", "/emotion"])
async def test_the_docs_need_nothing_from_elsewhere(new_app: Callable[..., FastAPI], root_path: str) -> None:
    async with serving(new_app(), root_path) as client:
        page = await client.get("/docs")
        start = (await client.get("/docs/assets/initialiser.js")).text
        links = re.findall(r"""(?:href=|src=|url: )["']([^"']+)["']""", page.text + start)
        assert len(links) == 5
        assert "//" not in "".join(links)
        for link in (urljoin(f"{root_path}/docs", link) for link in links):
            assert link.startswith(root_path + "/")
            # Both kinds of proxies: those that strip the prefix, and those that pass it on.
            assert (await client.get(link.removeprefix(root_path))).status_code == 200
            assert (await client.get(link)).status_code == 200
        document = (await client.get("/openapi.json")).json()
        assert document.get("servers") == ([{"url": root_path}] if root_path else None)


async def test_docs_may_be_turned_off(new_app: Callable[..., FastAPI]) -> None:
    async with serving(new_app(docs=False)) as client:
        for path in ("/docs", "/openapi.json", "/docs/assets/swagger-ui.css"):
            problem(await client.get(path), 404, "not_found")
        assert (await client.get("/")).status_code == 200
