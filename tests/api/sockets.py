"""A real server in the event loop of the test, and raw connections to it."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI

from service.api.problems import PROBLEM_MEDIA_TYPE
from service.api.server.http_protocol import limited_protocol
from service.api.server.websocket_protocol import WEBSOCKETS
from service.settings.settings import Settings

PATIENCE = 20.0


class QuietServer(uvicorn.Server):
    """Leaves the signal handlers to pytest."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def listening(
    app: FastAPI,
    grace: int = 5,
    send_buffer: int | None = None,
    **limits: Any,
) -> AsyncIterator[int]:
    """Serve `app` on a free port and yield the port.

    Args:
        app: the application.
        grace: seconds that the server waits for connections when it stops.
        send_buffer: of the kernel for each connection, in bytes.
        limits: settings of the protocol.
    """
    settings = Settings(**limits)
    config = uvicorn.Config(
        app,
        port=0,
        http=limited_protocol(settings),
        timeout_keep_alive=settings.keep_alive_timeout,
        **WEBSOCKETS,
        lifespan="on",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=grace,
    )
    server = QuietServer(config)
    serving = asyncio.create_task(server.serve())
    async with asyncio.timeout(PATIENCE):
        while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.005)
    if send_buffer is not None:
        for each in server.servers[0].sockets:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)  # connections inherit it
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        async with asyncio.timeout(PATIENCE):
            await serving


@dataclass
class Connection:
    """One connection, byte by byte."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def response(self) -> tuple[int, dict[str, str], Any]:
        """Status, headers and JSON of the next response, which must have a Content-Length."""
        async with asyncio.timeout(PATIENCE):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
            status, *lines = head.rstrip().split("\r\n")
            headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
            body = await self.reader.readexactly(int(headers["content-length"]))
        return int(status.split()[1]), headers, json.loads(body)

    async def problem(self, status: int, code: str) -> dict[str, str]:
        """The headers of the next response, which must be this problem."""
        found, headers, document = await self.response()
        assert (found, document["code"]) == (status, code)
        assert headers["content-type"] == PROBLEM_MEDIA_TYPE
        return headers

    async def closed(self) -> bytes:
        """The bytes that arrive until the server closes the connection."""
        async with asyncio.timeout(PATIENCE):
            try:
                return await self.reader.read()
            except ConnectionError:
                return b""


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Connection]:
    """A connection, aborted at the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Connection(reader, writer)
    finally:
        writer.transport.abort()


def head(length: int | None, path: str = "/recognize", media: str = "audio/wav") -> bytes:
    """The headers of a POST, with a body of this length or in chunks."""
    framing = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    return f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {media}\r\n{framing}\r\n\r\n".encode()


def http_client(port: int) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE)
