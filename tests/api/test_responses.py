from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.requests import ClientDisconnect

from service.api.responses import while_connected
from service.errors import InferenceFailed


class Client:
    """The `receive` channel of a request whose body has been read."""

    def __init__(self) -> None:
        self.messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def receive(self) -> dict[str, Any]:
        return await self.messages.get()

    def disconnect(self) -> None:
        self.messages.put_nowait({"type": "http.disconnect"})


async def test_a_job_of_a_connected_client() -> None:
    async def job() -> int:
        await asyncio.sleep(0)
        return 1

    client = Client()
    client.messages.put_nowait({"type": "http.request", "body": b"", "more_body": False})
    assert await while_connected(client.receive, job()) == 1


async def test_a_job_that_fails() -> None:
    async def job() -> None:
        raise InferenceFailed("no")

    with pytest.raises(InferenceFailed):
        await while_connected(Client().receive, job())


async def test_a_disconnect_is_raised_after_the_job_has_ended() -> None:
    ended = False

    async def job() -> None:
        nonlocal ended
        try:
            await asyncio.sleep(10)
        finally:
            await asyncio.sleep(0.01)
            ended = True

    client = Client()
    client.disconnect()
    with pytest.raises(ClientDisconnect):
        await while_connected(client.receive, job())
    assert ended


async def test_cancelling_the_request_cancels_the_job() -> None:
    cancelled = False

    async def job() -> None:
        nonlocal cancelled
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            cancelled = True
            raise

    request = asyncio.create_task(while_connected(Client().receive, job()))
    await asyncio.sleep(0.01)
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    assert cancelled
    assert asyncio.all_tasks() == {asyncio.current_task()}
