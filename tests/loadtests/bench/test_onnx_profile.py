"""The table of operators, with the embedded model."""

import pytest

from loadtests.bench import onnx_profile
from service.data import MODELS

TINY = MODELS / "tiny"


def test_the_least_of_several_runs_is_taken_and_loops_are_not_counted_twice() -> None:
    def event(operator: str, microseconds: int) -> dict[str, object]:
        return {"args": {"op_name": operator}, "dur": microseconds}

    runs = [
        [event("Loop", 90), event("Add", 20), event("Add", 25)],
        [event("Loop", 80), event("Add", 30), event("Add", 5)],
    ]
    assert onnx_profile.least_by_operator(runs) == {"Add": (2, 35)}


def test_the_products_with_weights_are_in_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    onnx_profile.main([str(TINY), "--seconds", "1", "--runs", "2"])
    rows = [line.split("|")[1:4] for line in capsys.readouterr().out.splitlines()[2:]]
    calls = {name.strip(): int(count) for name, count, _ in rows}
    assert calls["Gemm"] > 0
    assert calls["Conv"] == 3  # the positional convolutions
    assert calls["all"] == sum(calls.values()) - calls["all"]
