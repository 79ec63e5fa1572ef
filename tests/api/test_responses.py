from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.requests import ClientDisconnect

from service.api.responses import while_connected
from service.api.segment_response import wants_lines
from service.errors import InferenceFailed


@pytest.mark.parametrize(
    "accept",
    [
        "application/x-ndjson",
        "Application/X-NDJSON",
        "application/x-ndjson; charset=utf-8",
        "application/x-ndjson;q=0.1",
        "application/json;q=0.5, application/x-ndjson;q=0.5",
        "text/html, application/x-ndjson;q=0.9, */*;q=0.8",
        "application/x-ndjson, application/json;q=0.2, */*",
        "application/x-ndjson;q=1.000,",
    ],
)
def test_lines(accept: str) -> None:
    assert wants_lines([accept])


@pytest.mark.parametrize(
    "accept",
    [
        "",
        "*/*",
        "application/*",
        "application/json",
        "application/json, application/x-ndjson;q=0.9",
        "application/x-ndjson;q=0",
        "application/x-ndjson;q=0.000, */*",
        "application/x-ndjson;q=0.5, */*",
        "application/x-ndjson;q=0.5, application/*;q=0.6",
        "application/x-ndjson;q=high",
        "application/x-ndjson;q=2",
        "application/x-ndjson;q=-1",
        ";;;,,,=",
        "text/plain;format=application/x-ndjson",
    ],
)
def test_one_document(accept: str) -> None:
    assert not wants_lines([accept])


def test_several_headers_are_one() -> None:
    assert not wants_lines([])
    assert wants_lines(["application/json;q=0.1", "application/x-ndjson"])
    assert not wants_lines(["application/json", "application/x-ndjson;q=0.1"])


class Client:
    """The receiving side of a request whose body is through."""

    def __init__(self) -> None:
        self.messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def receive(self) -> dict[str, Any]:
        return await self.messages.get()

    def leave(self) -> None:
        self.messages.put_nowait({"type": "http.disconnect"})


async def test_work_of_a_connected_client() -> None:
    async def work() -> int:
        await asyncio.sleep(0)
        return 1

    client = Client()
    client.messages.put_nowait({"type": "http.request", "body": b"", "more_body": False})
    assert await while_connected(client.receive, work()) == 1


async def test_work_that_fails() -> None:
    async def work() -> None:
        raise InferenceFailed("no")

    with pytest.raises(InferenceFailed):
        await while_connected(Client().receive, work())


async def test_work_of_a_client_that_leaves_is_over_when_it_is_reported() -> None:
    over = False

    async def work() -> None:
        nonlocal over
        try:
            await asyncio.sleep(10)
        finally:
            await asyncio.sleep(0.01)
            over = True

    client = Client()
    client.leave()
    with pytest.raises(ClientDisconnect):
        await while_connected(client.receive, work())
    assert over


async def test_cancelling_the_request_cancels_the_work() -> None:
    cancelled = False

    async def work() -> None:
        nonlocal cancelled
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            cancelled = True
            raise

    request = asyncio.create_task(while_connected(Client().receive, work()))
    await asyncio.sleep(0.01)
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    assert cancelled
    assert asyncio.all_tasks() == {asyncio.current_task()}
