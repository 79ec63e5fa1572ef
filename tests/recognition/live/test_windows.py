"""The windows of a stream, compared with those of the whole stream, for any sizes of messages."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.recognition.live.windows import WindowCounter, WindowRange

SHORTEST = 4


def of_whole(total: int, length: int, hop: int) -> list[tuple[int, int]]:
    """All windows of a stream of `total` samples."""
    found = [(begin, begin + length) for begin in range(0, total, hop) if begin + length <= total]
    covered = found[-1][1] if found else 0
    begin = len(found) * hop
    return [*found, (begin, total)] if total > covered and total - begin >= SHORTEST else found


def all_due(windows: WindowCounter) -> list[WindowRange]:
    taken = []
    while windows.due:
        taken.append(windows.take())
    return taken


@given(
    pushes=st.lists(st.integers(0, 40), max_size=20),
    length=st.integers(SHORTEST, 30),
    hop=st.integers(1, 30),
    data=st.data(),
)
@settings(deadline=None, max_examples=200)
def test_every_window_is_due_once_it_is_complete(pushes: list[int], length: int, hop: int, data: st.DataObject) -> None:
    hop = min(hop, length)
    windows = WindowCounter(length, hop, shortest=SHORTEST, skip=False)
    taken: list[WindowRange] = []
    total = 0
    for size in pushes:
        total += size
        before = windows.due
        more = windows.extend(total)
        assert windows.due is (before or more)
        for _ in range(data.draw(st.integers(0, 3))):
            if windows.due:
                window = windows.take()
                assert window.last <= total
                taken.append(window)
        assert windows.needed <= max(total, len(taken) * hop)
    windows.end()
    taken += all_due(windows)
    assert [(window.first, window.last) for window in taken] == of_whole(total, length, hop)
    assert {window.skipped for window in taken} <= {0}


@given(pushes=st.lists(st.tuples(st.integers(0, 40), st.booleans()), max_size=20), hop=st.integers(1, 10))
@settings(deadline=None, max_examples=200)
def test_late_windows_are_left_out_and_counted(pushes: list[tuple[int, bool]], hop: int) -> None:
    length = 10
    windows = WindowCounter(length, hop, shortest=SHORTEST, skip=True)
    taken: list[WindowRange] = []
    total = 0
    for size, take in pushes:
        total += size
        windows.extend(total)
        needed = windows.needed
        if take and windows.due:
            window = windows.take()
            assert needed <= window.first
            assert window.last + hop > total, "a later window was complete"
            taken.append(window)
    windows.end()
    taken += all_due(windows)
    whole = of_whole(total, length, hop)
    places = [whole.index((window.first, window.last)) for window in taken]
    assert places == sorted(set(places))
    assert [window.skipped for window in taken] == [
        place - before - 1 for before, place in zip([-1, *places], places, strict=False)
    ]
    assert not whole or places[-1] == len(whole) - 1, "the last window is always scored"


@pytest.mark.parametrize(
    ("total", "expected"),
    [
        (0, []),
        (3, []),
        (4, [(0, 4)]),
        (9, [(0, 9)]),
        (10, [(0, 10)]),
        (11, [(0, 10), (5, 11)]),
        (13, [(0, 10), (5, 13)]),
    ],
)
def test_the_rest_is_a_window_if_it_is_long_enough(total: int, expected: list[tuple[int, int]]) -> None:
    windows = WindowCounter(10, 5, shortest=SHORTEST, skip=False)
    windows.extend(total)
    windows.end()
    assert [(window.first, window.last) for window in all_due(windows)] == expected


def test_a_rest_that_is_too_short_is_not_scored() -> None:
    windows = WindowCounter(10, 10, shortest=SHORTEST, skip=False)
    windows.extend(23)
    windows.end()
    assert [window.last for window in all_due(windows)] == [10, 20]


@pytest.mark.parametrize("hop", [0, 11])
def test_gaps_between_windows_are_refused(hop: int) -> None:
    with pytest.raises(ValueError, match="without gaps"):
        WindowCounter(10, hop, shortest=SHORTEST, skip=False)
