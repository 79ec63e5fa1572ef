"""Calls a function for many items in a few threads."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def map_in_threads(
    function: Callable[[T], R], items: Iterable[T], threads: int, *, in_order: bool
) -> Generator[tuple[T, R], None, None]:
    """Yield each item with the result of `function`.

    Args:
        function: called in the threads.
        items: consumed as needed; at most twice as many as threads are submitted at a time.
        threads: number of threads.
        in_order: whether to yield in the order of the items, or each as soon as it is done.

    Raises:
        Exception: what `function` raises; no other item is started then.
    """
    rest = iter(items)
    pool = ThreadPoolExecutor(threads, "file")
    running: dict[Future[R], T] = {}
    try:
        while True:
            for item in islice(rest, 2 * threads - len(running)):
                running[pool.submit(function, item)] = item
            if not running:
                return
            ready = {next(iter(running))} if in_order else wait(running, return_when=FIRST_COMPLETED).done
            for future in ready:
                yield running.pop(future), future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
