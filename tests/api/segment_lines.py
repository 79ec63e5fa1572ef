"""Requests with granularity=segment, and parsing of their JSON lines."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import orjson
from pydantic import TypeAdapter

from service.api.schemas import ProblemLine, StartLine
from tests.api.answers import check_problem

NDJSON = "application/x-ndjson"
_KNOWN: dict[str, TypeAdapter[Any]] = {"start": TypeAdapter(StartLine), "problem": TypeAdapter(ProblemLine)}


async def ask(client: httpx.AsyncClient, sound: bytes, accept: str = "*/*", **options: str) -> httpx.Response:
    """The response for a recording."""
    headers = {"Content-Type": "audio/wav", "Accept": accept}
    return await client.post("/recognize", content=sound, headers=headers, params={"granularity": "segment", **options})


async def whole(client: httpx.AsyncClient, sound: bytes, **options: str) -> dict[str, Any]:
    """The document for a recording."""
    response = await ask(client, sound, **options)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    answer: dict[str, Any] = response.json()
    return answer


async def streamed(client: httpx.AsyncClient, sound: bytes, **options: str) -> list[dict[str, Any]]:
    """The lines for a recording, checked."""
    return parsed(await ask(client, sound, NDJSON, **options))


def parsed(response: httpx.Response) -> list[dict[str, Any]]:
    """The lines of a response, checked."""
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == NDJSON
    assert "content-length" not in response.headers
    assert response.content.endswith(b"\n")
    lines = [check_line(line) for line in response.content.splitlines()]
    kinds = [line["type"] for line in lines]
    assert kinds[0] == "start"
    assert set(kinds[1:-1]) <= {"segment"}
    assert kinds[-1] in ("result", "problem")
    assert lines[0]["id"] == response.headers["x-request-id"]
    return lines


async def lines_of(response: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    """The lines of a response as they arrive."""
    async for line in response.aiter_lines():
        yield check_line(line.encode())


def check_line(text: bytes) -> dict[str, Any]:
    line: dict[str, Any] = orjson.loads(text)
    if line["type"] in _KNOWN:
        _KNOWN[line["type"]].validate_python(line, strict=True)
    return line


def problem_at_the_end(lines: list[dict[str, Any]], status: int, code: str) -> dict[str, Any]:
    """The last line, which must be this problem."""
    line = lines[-1]
    assert line["type"] == "problem"
    check_problem({**line, "type": f"urn:emotion2vec-service:problem:{code}"}, status, code)
    assert line["request_id"] == lines[0]["id"]
    return line
