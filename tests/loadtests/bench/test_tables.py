import pytest

from loadtests.bench.tables import Goal, Row, Spread


def test_ratio_is_taken_round_by_round() -> None:
    row = Row("k", "n", "s", {"a": [1.0, 10.0, 2.0], "b": [0.5, 2.0, 2.0]})
    assert row.ratio("b", "a") == Spread(2.0, 1.0, 5.0)
    assert row.spread("a") == Spread(2.0, 1.0, 10.0)


def test_ratio_of_rates_is_inverse() -> None:
    row = Row("k", "n", "", {"a": [2.0], "b": [6.0]}, "more")
    assert row.ratio("b", "a") == Spread(3.0, 3.0, 3.0)


def test_pooled_values_replace_medians() -> None:
    row = Row("k", "n", "s", {"a": [1.0, 3.0], "b": [1.0, 1.0]}, pooled={"a": 2.9, "b": 1.0})
    assert row.spread("a") == Spread(2.9, 1.0, 3.0)
    assert row.ratio("b", "a") == Spread(2.9, 1.0, 3.0)


def test_a_missing_measurement_has_no_value() -> None:
    row = Row("k", "n", "s", {"a": [1.0], "b": []})
    assert row.spread("b") is None
    assert row.spread("c") is None
    assert row.ratio("b", "a") is None
    assert row.ratio("a", "c") is None


def test_rows_without_a_better_direction_have_no_ratio() -> None:
    assert Row("k", "n", "", {"a": [1.0], "b": [1.0]}, "neither").ratio("a", "b") is None


def test_rounds_must_be_pairs() -> None:
    with pytest.raises(ValueError, match="zip"):
        Row("k", "n", "s", {"a": [1.0], "b": [1.0, 2.0]}).ratio("a", "b")


@pytest.mark.parametrize(
    ("found", "at_least", "met"), [(1.9, True, False), (2.0, True, True), (2.1, False, False), (None, True, None)]
)
def test_goal(found: float | None, at_least: bool, met: bool | None) -> None:
    assert Goal("g", 2.0, found, at_least).met is met
