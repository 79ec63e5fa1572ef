"""One interface to `Client` and `AsyncClient`, so that every test runs with both."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from emotion2vec_client import AsyncClient, Client

both_clients = pytest.mark.parametrize("client_class", [Client, AsyncClient])

ClientClass = type[Client] | type[AsyncClient]


def call(
    client_class: ClientClass, url: str, method: str, *args: Any, settings: dict[str, Any] | None = None, **options: Any
) -> Any:
    """Call one method of a new client; events are returned as a list."""
    return with_client(client_class, url, lambda do: do(method, *args, **options), settings)


def with_client(
    client_class: ClientClass,
    url: str,
    use: Callable[[Callable[..., Any]], Any],
    settings: dict[str, Any] | None = None,
) -> Any:
    """Let `use` call several methods of one client in turn: `do("recognize", file, trim=False)`."""
    if issubclass(client_class, Client):
        with client_class(url, **settings or {}) as client:

            def do(method: str, *args: Any, **options: Any) -> Any:
                answer = getattr(client, method)(*args, **options)
                return list(answer) if method == "segments" else answer

            return use(do)
    with asyncio.Runner() as runner:

        async def call_async(client: AsyncClient, method: str, *args: Any, **options: Any) -> Any:
            answer = getattr(client, method)(*args, **options)
            return [event async for event in answer] if method == "segments" else await answer

        async def create() -> AsyncClient:
            return client_class(url, **settings or {})

        async_client = runner.run(create())
        try:
            return use(lambda method, *args, **options: runner.run(call_async(async_client, method, *args, **options)))
        finally:
            runner.run(async_client.close())
