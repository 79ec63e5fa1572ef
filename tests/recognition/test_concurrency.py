from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from service.errors import DeadlineExceeded, Draining, InferenceFailed
from service.recognition.concurrency import all_of, in_pool, within


def now() -> float:
    return asyncio.get_running_loop().time()


@pytest.fixture
async def pool() -> AsyncIterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


async def test_a_block_that_ends_before_the_deadline() -> None:
    async with within(now() + 10):
        await asyncio.sleep(0)


@pytest.mark.parametrize("seconds", [0.01, -1.0])
async def test_a_block_that_ends_after_the_deadline(seconds: float) -> None:
    with pytest.raises(DeadlineExceeded):
        async with within(now() + seconds):
            await asyncio.sleep(10)


async def test_other_timeouts_are_not_changed() -> None:
    with pytest.raises(TimeoutError):
        async with within(now() + 10):
            raise TimeoutError


async def test_jobs_in_the_pool(pool: ThreadPoolExecutor) -> None:
    ended: list[str] = []
    assert await in_pool(pool, lambda: ended.append("done"), lambda a, b: a + b, 1, b=2) == 3
    with pytest.raises(ZeroDivisionError):
        await in_pool(pool, lambda: ended.append("failed"), lambda: 1 // 0)
    assert ended == ["done", "failed"]


async def test_a_job_whose_caller_was_cancelled_keeps_its_file_open_until_it_ends(pool: ThreadPoolExecutor) -> None:
    begun, release = threading.Event(), threading.Event()
    ended: list[str] = []

    def job() -> None:
        begun.set()
        release.wait(10)

    running = asyncio.create_task(in_pool(pool, lambda: ended.append("running"), job))
    await asyncio.to_thread(begun.wait, 10)
    queued = asyncio.create_task(in_pool(pool, lambda: ended.append("queued"), job))
    await asyncio.sleep(0.01)
    for task in (running, queued):
        task.cancel()
    await asyncio.wait((running, queued))
    assert ended == ["queued"]  # it never began; the other one still runs
    release.set()
    await in_pool(pool, None, int)  # the only thread is free again, so the job has ended
    assert ended == ["queued", "running"]


async def test_a_pool_that_has_been_shut_down(pool: ThreadPoolExecutor) -> None:
    ended: list[str] = []
    pool.shutdown()
    with pytest.raises(Draining):
        await in_pool(pool, lambda: ended.append("done"), int)
    assert ended == ["done"]
    with pytest.raises(Draining):
        await in_pool(pool, None, int)


async def test_the_first_failure_cancels_the_others() -> None:
    cancelled: list[int] = []

    async def job(index: int) -> int:
        try:
            if index == 2:
                raise InferenceFailed("no")
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            cancelled.append(index)
            raise
        return index

    with pytest.raises(InferenceFailed):
        await all_of(job(index) for index in range(4))
    assert sorted(cancelled) == [0, 1, 3]


@pytest.mark.parametrize("count", [0, 1, 3])
async def test_results_in_order(count: int) -> None:
    async def job(index: int) -> int:
        await asyncio.sleep(0.01 * (count - index))
        return index

    assert await all_of(job(index) for index in range(count)) == list(range(count))
