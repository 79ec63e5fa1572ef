"""The two clients behind one face, so that every test holds for both."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from emotion2vec_client import AsyncClient, Client

KINDS = ("blocking", "awaiting")


def call(kind: str, url: str, method: str, *args: Any, settings: dict[str, Any] | None = None, **options: Any) -> Any:
    """Make one call with a new client; events as a list."""
    return calls(kind, url, lambda do: do(method, *args, **options), settings)


def calls(
    kind: str, url: str, work: Callable[[Callable[..., Any]], Any], settings: dict[str, Any] | None = None
) -> Any:
    """Let `work` make calls, one after the other, with one client: `do("recognize", file, trim=False)`."""
    if kind == "blocking":
        with Client(url, **settings or {}) as client:

            def do(method: str, *args: Any, **options: Any) -> Any:
                answer = getattr(client, method)(*args, **options)
                return list(answer) if method == "segments" else answer

            return work(do)
    with asyncio.Runner() as runner:

        async def once(client: AsyncClient, method: str, *args: Any, **options: Any) -> Any:
            answer = getattr(client, method)(*args, **options)
            return [event async for event in answer] if method == "segments" else await answer

        async def opened() -> AsyncClient:
            return AsyncClient(url, **settings or {})

        awaiting = runner.run(opened())
        try:
            return work(lambda method, *args, **options: runner.run(once(awaiting, method, *args, **options)))
        finally:
            runner.run(awaiting.close())
