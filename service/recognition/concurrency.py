"""Run coroutines until a deadline or concurrently, and functions in threads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from typing import Any, ParamSpec, TypeVar

from service.errors import DeadlineExceeded, Draining

T = TypeVar("T")
P = ParamSpec("P")


@asynccontextmanager
async def within(deadline: float) -> AsyncIterator[None]:
    """Cancel the block at `deadline`, a time of the loop's clock.

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


async def in_pool(
    pool: Executor, done: Callable[[], object] | None, job: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
) -> T:
    """Run `job` in a thread of `pool`.

    A thread cannot be stopped, so cancelling the caller does not stop a running `job`. `done` is called when the job
    ends, or when it is dropped before it began; until then, files that the job reads must stay open.

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


async def all_of(jobs: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run `jobs` concurrently; the first failure cancels the rest and is raised."""
    coroutines = list(jobs)
    if len(coroutines) == 1:
        return [await coroutines[0]]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(each) for each in coroutines]
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]
