"""Calls for many items in a few threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from service.folders.thread_pool import map_in_threads


def slow_if_even(item: int) -> int:
    time.sleep(0.03 if item % 2 == 0 else 0)
    return -item


@pytest.mark.parametrize("in_order", [True, False])
def test_every_item_is_processed_once(in_order: bool) -> None:
    done = list(map_in_threads(slow_if_even, range(20), 4, in_order=in_order))
    assert sorted(done) == [(item, -item) for item in range(20)]
    assert (done == sorted(done)) is in_order


def test_without_items_there_are_no_results() -> None:
    assert list(map_in_threads(slow_if_even, [], 4, in_order=True)) == []


def test_items_are_consumed_only_as_needed() -> None:
    consumed = []

    def items() -> Iterator[int]:
        for item in range(1000):
            consumed.append(item)
            yield item

    with closing(map_in_threads(slow_if_even, items(), 3, in_order=False)) as done:
        next(done)
    assert len(consumed) <= 6


def test_all_threads_work_at_the_same_time() -> None:
    barrier = threading.Barrier(4, timeout=5)
    assert len(list(map_in_threads(lambda _: barrier.wait(), range(8), 4, in_order=False))) == 8


def test_an_error_ends_the_iteration_and_starts_no_more_calls() -> None:
    started = []

    def work(item: int) -> None:
        started.append(item)
        if item == 2:
            raise RuntimeError("no")
        time.sleep(0.01)

    with pytest.raises(RuntimeError, match="no"):
        list(map_in_threads(work, range(100), 2, in_order=False))
    time.sleep(0.1)
    assert len(started) < 10
