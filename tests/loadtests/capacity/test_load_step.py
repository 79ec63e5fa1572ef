import pytest

from loadtests.capacity.load_step import LoadStep
from loadtests.common.load_generator import CONNECTION_FAILED, TimedResponse, status_counts


def response(status: int, latency: float, audio: float) -> TimedResponse:
    return TimedResponse(status, latency, finished=0.0, audio=audio)


def test_a_load_step_summarizes_responses() -> None:
    responses = [response(200, latency / 100, 3.0) for latency in range(1, 102)]
    responses += [response(429, 0.001, 10.0), response(503, 0.001, 1.0), response(500, 0.1, 1.0)]
    responses.append(response(CONNECTION_FAILED, 9.0, 1.0))
    step = LoadStep.of("some", responses, 10.0)
    assert (step.answered, step.refused, step.failed) == (101, 2, 2)
    assert step.audio == pytest.approx(30.3)
    assert step.requests == pytest.approx(10.1)
    assert step.p50 == pytest.approx(0.51)
    assert step.p99 == pytest.approx(1.0)
    assert step.refused_share == pytest.approx(2 / 105)
    assert status_counts(responses) == {200: 101, 429: 1, 503: 1, 500: 1, 0: 1}


@pytest.mark.parametrize("responses", [[], [response(429, 0.1, 1.0)], [response(200, 0.5, 1.0)]])
def test_few_or_no_answers(responses: list[TimedResponse]) -> None:
    step = LoadStep.of("few", responses, 1.0)
    assert step.p50 == step.p99 == (0.5 if step.answered else 0.0)
