"""Many items, few threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from service.folders.thread_pool import work_off


def slow_if_even(item: int) -> int:
    time.sleep(0.03 if item % 2 == 0 else 0)
    return -item


@pytest.mark.parametrize("in_order", [True, False])
def test_everything_is_done_once(in_order: bool) -> None:
    done = list(work_off(slow_if_even, range(20), 4, in_order=in_order))
    assert sorted(done) == [(item, -item) for item in range(20)]
    assert (done == sorted(done)) is in_order


def test_nothing_at_all_is_done_as_well() -> None:
    assert list(work_off(slow_if_even, [], 4, in_order=True)) == []


def test_items_are_taken_only_as_they_are_needed() -> None:
    taken = []

    def items() -> Iterator[int]:
        for item in range(1000):
            taken.append(item)
            yield item

    with closing(work_off(slow_if_even, items(), 3, in_order=False)) as done:
        next(done)
    assert len(taken) <= 6


def test_as_many_go_on_at_a_time_as_there_are_threads() -> None:
    barrier = threading.Barrier(4, timeout=5)
    assert len(list(work_off(lambda _: barrier.wait(), range(8), 4, in_order=False))) == 8


def test_an_error_ends_it_and_begins_nothing_more() -> None:
    begun = []

    def work(item: int) -> None:
        begun.append(item)
        if item == 2:
            raise RuntimeError("no")
        time.sleep(0.01)

    with pytest.raises(RuntimeError, match="no"):
        list(work_off(work, range(100), 2, in_order=False))
    time.sleep(0.1)
    assert len(begun) < 10
