import pytest

from loadtests.bench import in_process
from loadtests.common.subprocess_worker import SubprocessWorker


class Counter:
    """Returns how often it was called, in a subprocess."""

    def __init__(self, start: int) -> None:
        self._calls = start

    def count(self) -> int:
        self._calls += 1
        return self._calls


def test_workers_are_measured_in_turn_after_a_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_process, "_PAUSE", 0)
    with SubprocessWorker(Counter, 0) as one, SubprocessWorker(Counter, 100) as other:
        found = in_process.in_turn({"one": one, "other": other}, "count", rounds=3)
    assert found == {"one": [2, 3, 4], "other": [102, 103, 104]}
