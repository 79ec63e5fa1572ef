"""Speed-up of clips that share a run, with the embedded model."""

import pytest

from loadtests.bench import shared_runs
from service.data import MODELS

TINY = MODELS / "tiny"


def test_both_are_called_in_every_round_after_a_warm_up() -> None:
    called: list[str] = []
    one, other = shared_runs.times_in_turn(lambda: called.append("one"), lambda: called.append("other"), rounds=3)
    assert called == ["one", "other"] * 4
    assert len(one) == len(other) == 3


def test_there_is_a_row_for_each_length(capsys: pytest.CaptureFixture[str]) -> None:
    shared_runs.main([str(TINY), "--seconds", "0.4", "1", "--rounds", "1"])
    rows = [line.split("|")[1].strip() for line in capsys.readouterr().out.splitlines()[2:]]
    assert rows == ["12 of 0.4 s", "5 of 1 s"]
