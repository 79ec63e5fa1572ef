"""The seconds of the stages of a request."""

from __future__ import annotations

from service.results import Timings

ONE = Timings(1.0, 2.0, 3.0, 4.0)
OTHER = Timings(4.0, 3.0, 2.0, 1.0)


def test_stages_are_named_in_request_order() -> None:
    assert list(ONE.by_stage().items()) == [("decode", 1.0), ("queue", 2.0), ("preprocess", 3.0), ("inference", 4.0)]


def test_timings_are_added_by_stage() -> None:
    assert ONE + Timings(queue=0.5) == Timings(1.0, 2.5, 3.0, 4.0)


def test_the_longest_of_several_is_the_maximum_of_each_stage() -> None:
    assert Timings.longest(each for each in (ONE, OTHER)) == Timings(4.0, 3.0, 3.0, 4.0)
    assert Timings.longest([]) == Timings()
