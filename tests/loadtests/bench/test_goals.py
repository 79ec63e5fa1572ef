from loadtests.bench.goals import evaluate
from loadtests.bench.tables import Report, Row, Table


def report_of(*rows: Row) -> Report:
    return Report({}, [Table("main", "", {}, {}, list(rows))])


def verdicts(report: Report) -> dict[str, bool | None]:
    return {goal.name: goal.met for goal in evaluate(report)}


def test_goals_without_a_measurement_are_neither_met_nor_missed() -> None:
    assert set(verdicts(report_of()).values()) == {None}


def test_ratios_are_those_to_funasr() -> None:
    row = Row("utterance-5", "", "s", {"funasr": [3.0], "fp32": [2.0], "int8": [2.0]})
    found = verdicts(report_of(row))
    assert found["FP32: utterance of 5 s, times as fast"] is True
    assert found["INT8: utterance of 5 s, times as fast"] is False


def test_limits() -> None:
    rows = (
        Row("added-p99", "", "s", {"fp32": [0.02], "int8": [0.001]}),
        Row("large-kappa", "", "", {"fp32": [0.99]}, "more"),
        Row("p99-5", "", "s", {"fp32": [1.0], "int8": [1.0]}),
        Row("p99-20", "", "s", {"fp32": [4.1], "int8": [3.9]}),
    )
    found = verdicts(report_of(*rows))
    assert found["FP32: added to the model at P99, seconds"] is False
    assert found["INT8: added to the model at P99, seconds"] is True
    assert found["FP32: kappa of the labels"] is False
    assert found["FP32: P99 of 20 callers, in times of that of 5"] is False
    assert found["INT8: P99 of 20 callers, in times of that of 5"] is True
