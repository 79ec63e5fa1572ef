"""The queue of clips, the choice of the next batch, and the measured throughput."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from service.inference.backend import BatchLimits
from service.inference.request_queue import Entry, RequestQueue, Throughput, select
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
    # The third does not fit. The fourth would, but must not overtake it.
    assert select(entries, BatchLimits(8, 10.0), NOW) == (entries[:2], [])


def test_a_clip_longer_than_a_batch_runs_alone() -> None:
    entries = [make_entry(50.0), make_entry(1.0)]
    assert select(entries, BatchLimits(8, 10.0), NOW) == (entries[:1], [])


def test_cancelled_and_late_entries_are_dropped_and_not_counted() -> None:
    gone, late = make_entry(9.0, gone=True), make_entry(9.0, deadline=NOW)
    wanted = [make_entry(5.0), make_entry(5.0)]
    assert select([gone, wanted[0], late, wanted[1]], BatchLimits(2, 10.0), NOW) == (wanted, [gone, late])


def test_a_clip_of_a_failed_batch_runs_alone() -> None:
    retried, others = [make_entry(retried=True) for _ in range(2)], [make_entry() for _ in range(2)]
    assert select([*retried, *others], BatchLimits(8, 100.0), NOW) == (retried[:1], [])
    assert select([*others, *retried], BatchLimits(8, 100.0), NOW) == (others, [])


def test_an_empty_queue_gives_no_batch() -> None:
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
        st.integers(2, 2560).map(lambda count: count / 64),  # exact in binary, so that sums are exact in any order
        deadline=st.sampled_from([NOW - 1, NOW + 1, NOW + 1, NOW + 1]),
        gone=st.sampled_from([False, False, False, True]),
        retried=st.sampled_from([False, False, False, True]),
    ),
    max_size=12,
)


@given(entries=entries_strategy, clips=st.integers(1, 6), seconds=st.floats(0.1, 60.0))
def test_invariants_of_a_batch(entries: list[Entry], clips: int, seconds: float) -> None:
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
        assert full or batch[0].retried or rest[0].retried, "the next entry would fit"


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


LIMITS = BatchLimits(4, 30.0)


def new_entry(seconds: float = 1.0) -> Entry:
    return make_entry(seconds, deadline=time.monotonic() + 60)


def test_the_number_of_clips_is_limited() -> None:
    queue = RequestQueue(2, 100.0)
    assert (queue.put(new_entry()), queue.full) == (True, False)
    assert (queue.put(new_entry()), queue.full) == (True, True)
    assert not queue.put(new_entry())
    assert queue.clips == 2


def test_the_seconds_of_audio_are_limited() -> None:
    queue = RequestQueue(100, 10.0)
    assert queue.put(new_entry(6.0))
    assert not queue.put(new_entry(5.0))
    assert queue.put(new_entry(4.0))
    assert queue.full
    assert queue.seconds == 10.0


def test_memory_is_limited_for_clips_above_48_khz() -> None:
    queue = RequestQueue(100, 10.0)
    large = [replace(new_entry(1.0), clip=Clip(np.zeros(200_000, np.float32), 200_000)) for _ in range(3)]
    assert queue.put(large[0])
    assert queue.put(large[1])
    assert not queue.put(large[2])
    assert queue.put(new_entry(8.0)), "the seconds fit"
    queue.discard(large[0])
    assert queue.clips == 2
    huge = replace(new_entry(1.0), clip=Clip(np.zeros(800_000, np.float32), 800_000))
    assert not queue.put(huge)
    assert queue.take(BatchLimits(9, 100.0))
    assert queue.put(huge), "an empty queue accepts it"
    assert queue.full


def test_an_empty_queue_accepts_any_clip() -> None:
    queue = RequestQueue(100, 10.0)
    assert queue.put(new_entry(25.0))
    assert not queue.put(new_entry(0.1))


def test_a_discarded_entry_takes_no_room() -> None:
    queue = RequestQueue(1, 10.0)
    entry = new_entry()
    assert queue.put(entry)
    queue.discard(entry)
    queue.discard(entry)
    assert (queue.clips, queue.seconds) == (0, 0.0)
    assert queue.put(new_entry())


def test_counts_what_waits_before_a_clip() -> None:
    queue = RequestQueue(10, 100.0)
    entries = [new_entry(seconds) for seconds in (1.0, 2.0, 4.0)]
    for entry in entries:
        assert queue.put(entry)
    clips = [entry.clip for entry in entries]
    assert None not in clips
    assert [queue.ahead_of(clip) for clip in clips if clip] == [(0, 0.0), (1, 1.0), (2, 3.0)]
    assert queue.take(BatchLimits(1, 30.0)) == entries[:1]
    assert [queue.ahead_of(clip) for clip in clips if clip] == [None, (0, 0.0), (1, 2.0)]


def test_short_clips_overtake_long_ones_after_a_long_one() -> None:
    queue = RequestQueue(10, 1000.0)
    first, second, third = (new_entry(100.0) for _ in range(3))
    short = [new_entry(1.0) for _ in range(3)]
    for entry in (first, second, short[0], third, short[1], short[2]):
        assert queue.put(entry)
    assert [queue.take(LIMITS) for _ in range(4)] == [[first], short, [second], [third]]


def test_a_long_clip_is_overtaken_by_no_more_audio_than_that_of_the_long_one_before() -> None:
    queue = RequestQueue(100, 1000.0)
    first, second = new_entry(40.0), new_entry(50.0)
    short = [new_entry(10.0) for _ in range(12)]
    for entry in (first, second, *short):
        assert queue.put(entry)
    taken = [queue.take(BatchLimits(4, 20.0)) for _ in range(8)]
    assert taken == [[first], short[:2], short[2:4], [second], *(short[i : i + 2] for i in range(4, 12, 2))]


def test_before_a_long_clip_has_run_none_is_overtaken() -> None:
    queue = RequestQueue(10, 1000.0)
    entries = [new_entry(1.0), new_entry(100.0), new_entry(1.0)]
    for entry in entries:
        assert queue.put(entry)
    assert [queue.take(LIMITS) for _ in range(3)] == [[entry] for entry in entries]


def test_audio_that_overtakes_nothing_does_not_count() -> None:
    queue = RequestQueue(100, 1000.0)
    assert queue.put(new_entry(100.0))
    assert queue.take(LIMITS)
    for _ in range(10):
        assert queue.put(new_entry(20.0))
        assert queue.take(LIMITS)
    second, short = new_entry(100.0), new_entry(1.0)
    assert queue.put(second)
    assert queue.put(short)
    assert [queue.take(LIMITS) for _ in range(2)] == [[short], [second]]


def test_a_clip_that_is_retried_goes_first_even_if_it_is_long() -> None:
    queue = RequestQueue(10, 1000.0)
    first, second, short = new_entry(100.0), new_entry(100.0), new_entry(1.0)
    for entry in (first, second, short):
        assert queue.put(entry)
    assert queue.take(LIMITS) == [first]
    first.retried = True
    queue.put_back([first])
    assert [queue.take(LIMITS) for _ in range(3)] == [[first], [short], [second]]


def test_take_waits_for_an_entry_without_polling() -> None:
    queue = RequestQueue(10, 100.0)
    taken: list[list[Entry] | None] = []
    thread = threading.Thread(target=lambda: taken.append(queue.take(LIMITS)))
    thread.start()
    assert queue.put(make_entry(gone=True))  # wakes the thread, which goes on waiting
    entry = new_entry()
    assert queue.put(entry)
    thread.join(10)
    assert taken == [[entry]]
    assert queue.clips == 0


def test_closing_ends_the_wait_and_refuses_new_entries() -> None:
    queue = RequestQueue(10, 100.0)
    taken: list[list[Entry] | None] = []
    thread = threading.Thread(target=lambda: taken.append(queue.take(LIMITS)))
    thread.start()
    queue.close()
    thread.join(10)
    assert taken == [None]
    assert not queue.put(new_entry())
    assert queue.closed
    assert queue.take(LIMITS) is None


def test_closing_drops_what_waits() -> None:
    queue = RequestQueue(10, 100.0)
    assert queue.put(new_entry())
    queue.close()
    assert (queue.clips, queue.seconds) == (0, 0.0)
    assert queue.take(LIMITS) is None


def test_entries_put_back_come_first_even_in_a_full_queue() -> None:
    queue = RequestQueue(3, 10.0)
    entries = [new_entry() for _ in range(6)]
    assert all(queue.put(entry) for entry in entries[:3])
    assert queue.take(LIMITS) == entries[:3]
    assert all(queue.put(entry) for entry in entries[3:])
    queue.put_back(entries[:3])
    assert (queue.clips, queue.seconds, queue.full) == (6, 6.0, True)
    assert queue.take(LIMITS) == entries[:4]


def test_putting_back_wakes_the_worker() -> None:
    queue = RequestQueue(10, 100.0)
    taken: list[list[Entry] | None] = []
    thread = threading.Thread(target=lambda: taken.append(queue.take(LIMITS)))
    thread.start()
    entry = new_entry()
    queue.put_back([entry])
    thread.join(10)
    assert taken == [[entry]]


def test_nothing_is_put_back_into_a_closed_queue() -> None:
    queue = RequestQueue(10, 100.0)
    queue.close()
    queue.put_back([new_entry()])
    assert (queue.clips, queue.seconds) == (0, 0.0)


class QueueMachine(RuleBasedStateMachine):
    """Compares the queue with a list."""

    MAX_CLIPS = 6
    MAX_SECONDS = 20.0

    def __init__(self) -> None:
        super().__init__()
        self.queue = RequestQueue(self.MAX_CLIPS, self.MAX_SECONDS)
        self.model: list[Entry] = []

    @property
    def model_seconds(self) -> float:
        return sum(entry.seconds for entry in self.model)

    @rule(seconds=st.integers(1, 100).map(lambda n: n / 4))
    def put(self, seconds: float) -> None:
        room = len(self.model) < self.MAX_CLIPS and (not self.model or self.model_seconds + seconds <= self.MAX_SECONDS)
        entry = new_entry(seconds)
        assert self.queue.put(entry) == room
        if room:
            self.model.append(entry)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def discard(self, data: st.DataObject) -> None:
        entry = data.draw(st.sampled_from(self.model))
        self.queue.discard(entry)
        self.model.remove(entry)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self.model)).clip = None

    @precondition(lambda self: any(entry.clip for entry in self.model))
    @rule(clips=st.integers(1, 4), seconds=st.floats(1.0, 30.0))
    def take(self, clips: int, seconds: float) -> None:
        batch = self.queue.take(BatchLimits(clips, seconds))
        assert batch
        wanted = [entry for entry in self.model if entry.clip]
        short = [entry for entry in wanted if entry.seconds <= seconds]
        assert batch in (wanted[: len(batch)], short[: len(batch)])
        left = [entry for entry in self.model if entry in self.queue._entries]
        # Cancelled entries may or may not have been removed as well.
        assert [entry for entry in self.model if entry.clip and entry not in left] == batch
        self.model = left

    @invariant()
    def equals_the_list(self) -> None:
        assert self.queue.clips == len(self.model)
        assert self.queue.seconds == self.model_seconds
        assert self.queue.full == (len(self.model) >= self.MAX_CLIPS or self.model_seconds >= self.MAX_SECONDS)


QueueMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestQueueMachine = QueueMachine.TestCase


def test_before_the_first_run_clients_retry_after_a_second() -> None:
    assert Throughput().retry_after(1000.0) == 1.0


def test_the_time_to_retry_is_the_queue_divided_by_the_speed() -> None:
    throughput = Throughput()
    throughput.observe(audio=40.0, wall=2.0)
    assert throughput.retry_after(100.0) == pytest.approx(5.0)


def test_a_wait_is_estimated_from_the_first_run_on() -> None:
    throughput = Throughput()
    assert throughput.expected(100.0) is None
    throughput.observe(audio=40.0, wall=2.0)
    assert throughput.expected(0.0) == 0.0
    assert throughput.expected(10.0) == pytest.approx(0.5)


def test_the_time_to_retry_is_clamped() -> None:
    throughput = Throughput()
    throughput.observe(audio=1.0, wall=1.0)
    assert throughput.retry_after(0.0) == 1.0
    assert throughput.retry_after(1e9) == 60.0


def test_recent_runs_count_for_more() -> None:
    throughput = Throughput()
    throughput.observe(audio=1.0, wall=1.0)
    for _ in range(100):
        throughput.observe(audio=10.0, wall=1.0)
    assert throughput.retry_after(100.0) == pytest.approx(10.0, rel=1e-3)
