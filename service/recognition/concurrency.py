"""Running a request's work: not past its deadline, not after its client has gone, and never on the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from typing import Any, ParamSpec, TypeVar

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from service.errors import DeadlineExceeded, Draining

T = TypeVar("T")
P = ParamSpec("P")


@asynccontextmanager
async def within(deadline: float) -> AsyncIterator[None]:
    """Allow what is inside until `deadline` on the loop's clock.

    Raises:
        DeadlineExceeded: if it takes longer.
    """
    try:
        async with asyncio.timeout_at(deadline) as timeout:
            yield
    except TimeoutError:
        if not timeout.expired():
            raise
        raise DeadlineExceeded("The answer was not ready within the time allowed.") from None


async def while_connected(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Run `work` as long as the client is there. The request's body must have been read to its end.

    Raises:
        ClientDisconnect: if the client leaves first; `work` is cancelled and over by then.
    """
    task = asyncio.ensure_future(work)
    watcher = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait((task, watcher), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
    finally:
        # Also where this request itself is cancelled: nothing may go on unseen.
        watcher.cancel()
        task.cancel()
        await asyncio.gather(task, watcher, return_exceptions=True)
    return task.result()


async def in_pool(
    pool: Executor, done: Callable[[], object] | None, job: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
) -> T:
    """Run `job` in a thread of `pool`.

    A thread cannot be stopped, so cancelling leaves a running `job` behind. `done` is called when it is over, or when
    it is dropped before it began: whatever the job reads must stay open until then.

    Raises:
        Draining: if the pool is shut down.
    """
    try:
        future = pool.submit(job, *args, **kwargs)
    except RuntimeError:  # the pool is shut down
        if done is not None:
            done()
        raise Draining("The service is shutting down; another instance will answer.") from None
    if done is not None:
        future.add_done_callback(lambda _: done())
    return await asyncio.wrap_future(future)


async def all_of(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run `work` concurrently; the first failure cancels the rest and is raised."""
    coroutines = list(work)
    if len(coroutines) == 1:
        return [await coroutines[0]]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(each) for each in coroutines]
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
