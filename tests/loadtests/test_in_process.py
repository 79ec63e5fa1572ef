import numpy as np
import pytest

from loadtests import in_process
from loadtests.worker import Worker


class Counter:
    """Says how often it was called, in a worker."""

    def __init__(self, start: int) -> None:
        self._calls = start

    def count(self) -> int:
        self._calls += 1
        return self._calls


def test_sides_are_measured_in_turn_after_one_call_that_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_process, "_PAUSE", 0)
    with Worker(Counter, 0) as one, Worker(Counter, 100) as other:
        found = in_process.in_turn({"one": one, "other": other}, "count", rounds=3)
    assert found == {"one": [2, 3, 4], "other": [102, 103, 104]}


def test_kappa() -> None:
    one = np.array([0, 0, 1, 1, 2, 2])
    assert in_process.cohen_kappa(one, one) == 1
    assert in_process.cohen_kappa(one, np.array([0, 0, 1, 1, 1, 1])) == pytest.approx(0.5)
    assert in_process.cohen_kappa(np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1])) == 0
    assert in_process.cohen_kappa(np.zeros(3, np.int64), np.zeros(3, np.int64)) == 1
