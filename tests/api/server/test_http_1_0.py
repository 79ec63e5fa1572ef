"""Clients of HTTP/1.0 know no chunks: a body of unknown length ends with the connection."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from fastapi import FastAPI

from tests.api.segment_lines import check_line
from tests.api.sockets import connected, head, listening
from tests.api.sounds import call, wav


def asking(path: str, body: bytes, *headers: bytes, version: bytes = b"1.0") -> bytes:
    start = head(len(body), path).replace(b"HTTP/1.1", b"HTTP/" + version)
    return start.removesuffix(b"\r\n") + b"".join(header + b"\r\n" for header in headers) + b"\r\n" + body


async def exchange(app: FastAPI, request: bytes) -> tuple[bytes, bytes]:
    """Headers and body of the response, up to the end of the connection."""
    async with listening(app) as port, connected(port) as connection:
        await connection.send(request)
        start, _, body = (await connection.closed()).partition(b"\r\n\r\n")
        return start.lower(), body


async def test_lines(new_app: Callable[..., FastAPI]) -> None:
    sound = call(6, [(1, 2), (3, 4)])
    request = asking("/recognize?granularity=segment", sound, b"Accept: application/x-ndjson")
    start, body = await exchange(new_app(), request)
    assert start.startswith(b"http/1.1 200 ")
    assert b"transfer-encoding" not in start
    assert b"connection: close" in start
    lines = [check_line(line) for line in body.splitlines()]
    assert [line["type"] for line in lines] == ["start", "segment", "segment", "result"]


@pytest.mark.parametrize("keep", [[], [b"Connection: keep-alive"]], ids=["close", "keep-alive"])
@pytest.mark.parametrize("path", ["/recognize", "/recognize?granularity=frame&embedding=frame"])
async def test_a_document(new_app: Callable[..., FastAPI], path: str, keep: list[bytes]) -> None:
    start, body = await exchange(new_app(), asking(path, wav(60), *keep))
    assert start.startswith(b"http/1.1 200 ")
    assert b"content-length: %d" % len(body) in start
    assert json.loads(body)["scores"]


async def test_a_request_without_host(new_app: Callable[..., FastAPI]) -> None:
    start, body = await exchange(new_app(), b"GET /livez HTTP/1.0\r\n\r\n")
    assert start.startswith(b"http/1.1 200 ")
    assert json.loads(body) == {"status": "alive"}


async def test_lines_in_chunks_for_http_1_1(new_app: Callable[..., FastAPI]) -> None:
    headers = (b"Accept: application/x-ndjson", b"Connection: close")
    request = asking("/recognize?granularity=segment", call(6, [(1, 2)]), *headers, version=b"1.1")
    start, body = await exchange(new_app(), request)
    assert b"transfer-encoding: chunked" in start
    assert body.endswith(b"\r\n0\r\n\r\n")
