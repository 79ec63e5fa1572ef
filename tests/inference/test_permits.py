from __future__ import annotations

from contextlib import ExitStack

import pytest

from service.inference.permits import Permits


def take_all(permits: Permits, caller: str, held: ExitStack) -> int:
    """Take permits for `caller` until it may have no more; how many these are."""
    number = 0
    while not permits.all_taken and not permits.share_taken(caller):
        held.enter_context(permits.hold(caller))
        number += 1
    return number


@pytest.mark.parametrize(
    ("limit", "share", "alone"),
    [(64, 0.5, 32), (128, 0.5, 64), (10, 0.9, 9), (7, 1.0, 7), (1, 0.5, 1), (2, 0.1, 1), (0, 0.5, 0)],
)
def test_a_caller_alone_gets_its_share(limit: int, share: float, alone: int) -> None:
    with ExitStack() as held:
        assert take_all(Permits(limit, share), "caller", held) == alone


def test_some_permits_stay_free_however_many_callers_take_all_they_may() -> None:
    permits = Permits(100, 0.5)
    with ExitStack() as held:
        taken = [take_all(permits, f"greedy {number}", held) for number in range(4)]
        assert taken == [50, 25, 13, 6]
        assert take_all(permits, "polite", held) == 3
    assert permits.taken == 0


def test_permits_are_given_back_to_the_caller_after_an_error_too() -> None:
    permits = Permits(2, 0.5)
    for _ in range(3):
        with permits.hold("caller"):
            assert permits.share_taken("caller")
            assert not permits.share_taken("other")
        with pytest.raises(KeyError), permits.hold("caller"):
            raise KeyError
    assert permits.taken == 0
    assert not permits.share_taken("caller")
