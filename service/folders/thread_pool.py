"""Working off many items with a few threads."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Done = TypeVar("Done")


def work_off(
    work: Callable[[Item], Done], items: Iterable[Item], threads: int, *, in_order: bool
) -> Generator[tuple[Item, Done], None, None]:
    """Give each item with what `work` made of it.

    Args:
        work: is called in threads.
        items: taken as they are needed, no more than twice as many as there are threads.
        threads: how many calls go on at a time.
        in_order: whether to give them in their order, or each as soon as it is done.

    Raises:
        Exception: what `work` raises; no other item is begun then.
    """
    rest = iter(items)
    pool = ThreadPoolExecutor(threads, "file")
    running: dict[Future[Done], Item] = {}
    try:
        while True:
            for item in islice(rest, 2 * threads - len(running)):
                running[pool.submit(work, item)] = item
            if not running:
                return
            ready = {next(iter(running))} if in_order else wait(running, return_when=FIRST_COMPLETED).done
            for future in ready:
                yield running.pop(future), future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
