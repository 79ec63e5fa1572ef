import pytest

from loadtests.bench import in_process
from loadtests.common.subprocess_worker import SubprocessWorker


class Counter:
    """Says how often it was called, in a worker."""

    def __init__(self, start: int) -> None:
        self._calls = start

    def count(self) -> int:
        self._calls += 1
        return self._calls


def test_sides_are_measured_in_turn_after_one_call_that_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_process, "_PAUSE", 0)
    with SubprocessWorker(Counter, 0) as one, SubprocessWorker(Counter, 100) as other:
        found = in_process.in_turn({"one": one, "other": other}, "count", rounds=3)
    assert found == {"one": [2, 3, 4], "other": [102, 103, 104]}
