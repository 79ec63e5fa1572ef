"""What comes back: answers, events, and what is neither."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

import pytest
from emotion2vec_client import Client, Disconnected, Problem
from emotion2vec_client.answers import Events

from tests.client.either import KINDS, call
from tests.client.scripted import Reply, refusal, scripted

either = pytest.mark.parametrize("kind", KINDS)

START = {"type": "start", "id": "1", "model": {"id": "tiny"}, "audio": {"sampling_rate": 8000, "channels": 2}}
SEGMENT = {"type": "segment", "channel": 1, "start": 0.5, "end": 2.5, "label": "高兴\u2028", "score": 0.9, "scores": []}
RESULT = {"type": "result", "audio": {"duration": 3.0}, "channels": []}
PROBLEM = {"type": "problem", "status": 422, "code": "audio_truncated", "title": "Cut", "detail": "Ends early."}


def lines(*events: Mapping[str, object]) -> bytes:
    return b"".join(json.dumps(event, ensure_ascii=False).encode() + b"\n" for event in events)


@either
def test_events_come_in_order_and_ask_for_segments(kind: str) -> None:
    with scripted(Reply(body=lines(START, SEGMENT, RESULT))) as server:
        assert call(kind, server.url, "segments", b"x", channels="split") == [START, SEGMENT, RESULT]
    (asked,) = server.asked
    assert asked.headers["accept"] == "application/x-ndjson"
    assert asked.path == "/recognize?channels=split&granularity=segment"


def test_an_event_is_there_before_the_next_one_is_made() -> None:
    with scripted(Reply(body=lines(START, SEGMENT, RESULT), pause=0.2)) as server, Client(server.url) as client:
        events = client.segments(b"x")
        assert next(events)["type"] == "start"
        assert isinstance(events, Iterator)
        assert len(server.asked) == 1
        events.close()  # type: ignore[attr-defined]  # leaving early ends the call


@either
def test_a_problem_midway_is_raised_as_one(kind: str) -> None:
    with scripted(Reply(body=lines(START, SEGMENT, PROBLEM))) as server, pytest.raises(Problem) as caught:
        call(kind, server.url, "segments", b"x")
    assert (caught.value.status, caught.value.code, caught.value.detail) == (422, "audio_truncated", "Ends early.")


@either
@pytest.mark.parametrize("reply", [Reply(body=lines(START, SEGMENT)), Reply(body=lines(START, RESULT), fault="half")])
def test_events_that_end_before_the_result_are_no_answer(kind: str, reply: Reply) -> None:
    with scripted(reply) as server, pytest.raises(Disconnected):
        call(kind, server.url, "segments", b"x")


def test_events_are_the_same_however_the_bytes_are_split() -> None:
    data = lines(START, SEGMENT, RESULT)
    for size in (1, 2, 3, 7, 1000):
        events = Events("id")
        found = [event for begin in range(0, len(data), size) for event in events.of(data[begin : begin + size])]
        events.finish()
        assert found == [START, SEGMENT, RESULT]


@pytest.mark.parametrize("data", [b"<html>\n", b"[1]\n", lines(RESULT, RESULT)])
def test_lines_that_are_no_events_are_refused(data: bytes) -> None:
    with pytest.raises(Problem, match="unexpected_answer"):
        list(Events("id").of(data))


@either
@pytest.mark.parametrize("body", [b"<html>Log in to the network</html>", b"[]", b""])
def test_an_answer_of_something_else_is_told_apart(kind: str, body: bytes) -> None:
    with scripted(Reply(body=body)) as server, pytest.raises(Problem) as caught:
        call(kind, server.url, "recognize", b"x")
    assert caught.value.code == "unexpected_answer"


@either
@pytest.mark.parametrize(
    ("status", "code"), [(502, "bad_gateway"), (301, "moved_permanently"), (599, "unexpected_answer")]
)
def test_an_answer_of_a_proxy_is_a_problem_with_its_status(kind: str, status: int, code: str) -> None:
    with scripted(Reply(status, b"<html>", {"Content-Type": "text/html"})) as server, pytest.raises(Problem) as caught:
        call(kind, server.url, "recognize", b"x")
    assert (caught.value.status, caught.value.code, caught.value.errors) == (status, code, [])
    assert f"answered {status}" in str(caught.value)


@either
def test_readiness(kind: str) -> None:
    loading, ready = refusal(503, code="model_loading"), Reply(body=b'{"status": "ready"}')
    with scripted(loading, ready) as server:
        assert call(kind, server.url, "ready") is False
        assert call(kind, server.url, "ready") is True
    with scripted(loading, loading, ready) as server:
        call(kind, server.url, "wait_ready", 10)
    assert len(server.asked) == 3
    with scripted(refusal(404)) as server, pytest.raises(Problem):
        call(kind, server.url, "ready")
