from __future__ import annotations

import asyncio
from collections.abc import Iterator

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from service.inference.backend import BatchLimits
from service.inference.request_queue import Entry, select
from service.results import Clip

NOW = 100.0


def make_entry(seconds: float = 1.0, *, deadline: float = NOW + 1, gone: bool = False, retried: bool = False) -> Entry:
    loop = asyncio.new_event_loop()
    loop.close()  # the future is never waited for
    clip = None if gone else Clip(np.zeros(1, np.float32), 16_000)
    return Entry(clip, seconds, NOW - 1, deadline, asyncio.Future(loop=loop), retried)


def test_takes_by_arrival_up_to_the_number_of_clips() -> None:
    entries = [make_entry() for _ in range(5)]
    assert select(entries, BatchLimits(3, 100.0), NOW) == (entries[:3], [])


def test_takes_by_arrival_up_to_the_seconds() -> None:
    entries = [make_entry(4.0), make_entry(5.0), make_entry(2.0), make_entry(0.5)]
    # The third would not fit; the fourth would, but must not overtake it.
    assert select(entries, BatchLimits(8, 10.0), NOW) == (entries[:2], [])


def test_a_clip_longer_than_any_batch_makes_its_own() -> None:
    entries = [make_entry(50.0), make_entry(1.0)]
    assert select(entries, BatchLimits(8, 10.0), NOW) == (entries[:1], [])


def test_drops_abandoned_and_late_entries_and_does_not_count_them() -> None:
    gone, late = make_entry(9.0, gone=True), make_entry(9.0, deadline=NOW)
    kept = [make_entry(5.0), make_entry(5.0)]
    assert select([gone, kept[0], late, kept[1]], BatchLimits(2, 10.0), NOW) == (kept, [gone, late])


def test_a_clip_of_a_failed_batch_is_alone() -> None:
    retried, others = [make_entry(retried=True) for _ in range(2)], [make_entry() for _ in range(2)]
    assert select([*retried, *others], BatchLimits(8, 100.0), NOW) == (retried[:1], [])
    assert select([*others, *retried], BatchLimits(8, 100.0), NOW) == (others, [])


def test_nothing_waits_nothing_comes() -> None:
    assert select([], BatchLimits(2, 10.0), NOW) == ([], [])


def test_reads_no_further_than_needed() -> None:
    def waiting() -> Iterator[Entry]:
        yield make_entry()
        yield make_entry()
        raise AssertionError("read too far")

    assert len(select(waiting(), BatchLimits(1, 10.0), NOW)[0]) == 1


entries_strategy = st.lists(
    st.builds(
        make_entry,
        st.integers(2, 2560).map(lambda count: count / 64),  # exact, so that sums are, in whatever way they are made
        deadline=st.sampled_from([NOW - 1, NOW + 1, NOW + 1, NOW + 1]),
        gone=st.sampled_from([False, False, False, True]),
        retried=st.sampled_from([False, False, False, True]),
    ),
    max_size=12,
)


@given(entries=entries_strategy, clips=st.integers(1, 6), seconds=st.floats(0.1, 60.0))
def test_invariants(entries: list[Entry], clips: int, seconds: float) -> None:
    limits = BatchLimits(clips, seconds)
    batch, dropped = select(entries, limits, NOW)
    begin = entries[: len(batch) + len(dropped)]
    assert [entry for entry in begin if entry.wanted(NOW)] == batch
    assert [entry for entry in begin if not entry.wanted(NOW)] == dropped
    assert len(batch) <= clips
    assert len(batch) == 1 or sum(entry.seconds for entry in batch) <= seconds
    assert len(batch) == 1 or not any(entry.retried for entry in batch)
    rest = entries[len(begin) :]
    assert bool(batch) == any(entry.wanted(NOW) for entry in entries)
    if rest:
        full = len(batch) == clips or sum(entry.seconds for entry in [*batch, rest[0]]) > seconds
        assert full or batch[0].retried or rest[0].retried, "there was room for the next one"


@given(entries=entries_strategy, clips=st.integers(1, 4), seconds=st.floats(0.1, 30.0))
def test_no_clip_starves(entries: list[Entry], clips: int, seconds: float) -> None:
    waiting = list(entries)
    taken: list[Entry] = []
    while waiting:
        batch, dropped = select(waiting, BatchLimits(clips, seconds), NOW)
        assert batch or dropped
        taken += batch
        waiting = waiting[len(batch) + len(dropped) :]
    assert taken == [entry for entry in entries if entry.wanted(NOW)]
