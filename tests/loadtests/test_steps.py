import pytest

from loadtests.arrivals import BROKEN, Outcome
from loadtests.steps import Step, statuses


def test_a_step_sums_up() -> None:
    outcomes = [Outcome(200, latency / 100, 3.0) for latency in range(1, 102)]
    outcomes += [Outcome(429, 0.001, 10.0), Outcome(503, 0.001, 1.0), Outcome(500, 0.1, 1.0), Outcome(BROKEN, 9.0, 1.0)]
    step = Step.of("some", outcomes, 10.0)
    assert (step.answered, step.refused, step.failed) == (101, 2, 2)
    assert step.audio == pytest.approx(30.3)
    assert step.requests == pytest.approx(10.1)
    assert step.p50 == pytest.approx(0.51)
    assert step.p99 == pytest.approx(1.0)
    assert step.refused_share == pytest.approx(2 / 105)
    assert statuses(outcomes) == {200: 101, 429: 1, 503: 1, 500: 1, 0: 1}


@pytest.mark.parametrize("outcomes", [[], [Outcome(429, 0.1, 1.0)], [Outcome(200, 0.5, 1.0)]])
def test_few_or_no_answers(outcomes: list[Outcome]) -> None:
    step = Step.of("few", outcomes, 1.0)
    assert step.p50 == step.p99 == (0.5 if step.answered else 0.0)
