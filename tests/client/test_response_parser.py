"""Responses: answers, events, problems, and responses of other servers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

import pytest
from emotion2vec_client import Client, Disconnected, Problem
from emotion2vec_client.response_parser import EventParser

from tests.client.both_clients import ClientClass, both_clients, call
from tests.client.scripted_server import Reply, refusal, scripted

START = {"type": "start", "id": "1", "model": {"id": "tiny"}, "audio": {"sampling_rate": 8000, "channels": 2}}
SEGMENT = {"type": "segment", "channel": 1, "start": 0.5, "end": 2.5, "label": "高兴\u2028", "score": 0.9, "scores": []}
RESULT = {"type": "result", "audio": {"duration": 3.0}, "channels": []}
PROBLEM = {"type": "problem", "status": 422, "code": "audio_truncated", "title": "Cut", "detail": "Ends early."}


def lines(*events: Mapping[str, object]) -> bytes:
    return b"".join(json.dumps(event, ensure_ascii=False).encode() + b"\n" for event in events)


@both_clients
def test_segments_yields_all_events_in_order(client_class: ClientClass) -> None:
    with scripted(Reply(body=lines(START, SEGMENT, RESULT))) as server:
        assert call(client_class, server.url, "segments", b"x", channels="split") == [START, SEGMENT, RESULT]
    (request,) = server.received
    assert request.headers["accept"] == "application/x-ndjson"
    assert request.path == "/recognize?channels=split&granularity=segment"


def test_an_event_is_yielded_before_the_next_one_arrives() -> None:
    with scripted(Reply(body=lines(START, SEGMENT, RESULT), pause=0.2)) as server, Client(server.url) as client:
        events = client.segments(b"x")
        assert next(events)["type"] == "start"
        assert isinstance(events, Iterator)
        assert len(server.received) == 1
        events.close()  # type: ignore[attr-defined]  # closing the iterator ends the request


@both_clients
def test_a_problem_after_some_events_is_raised(client_class: ClientClass) -> None:
    with scripted(Reply(body=lines(START, SEGMENT, PROBLEM))) as server, pytest.raises(Problem) as caught:
        call(client_class, server.url, "segments", b"x")
    assert (caught.value.status, caught.value.code, caught.value.detail) == (422, "audio_truncated", "Ends early.")


@both_clients
@pytest.mark.parametrize("reply", [Reply(body=lines(START, SEGMENT)), Reply(body=lines(START, RESULT), fault="half")])
def test_a_response_that_ends_before_the_result_raises_disconnected(client_class: ClientClass, reply: Reply) -> None:
    with scripted(reply) as server, pytest.raises(Disconnected):
        call(client_class, server.url, "segments", b"x")


def test_events_do_not_depend_on_how_the_bytes_are_split() -> None:
    data = lines(START, SEGMENT, RESULT)
    for size in (1, 2, 3, 7, 1000):
        parser = EventParser("id")
        found = [event for begin in range(0, len(data), size) for event in parser.feed(data[begin : begin + size])]
        parser.finish()
        assert found == [START, SEGMENT, RESULT]


@pytest.mark.parametrize("data", [b"<html>\n", b"[1]\n", lines(RESULT, RESULT)])
def test_lines_that_are_not_events_raise_a_problem(data: bytes) -> None:
    with pytest.raises(Problem, match="unexpected_answer"):
        list(EventParser("id").feed(data))


@both_clients
@pytest.mark.parametrize("body", [b"<html>Log in to the network</html>", b"[]", b""])
def test_a_response_that_is_not_a_json_object_raises_a_problem(client_class: ClientClass, body: bytes) -> None:
    with scripted(Reply(body=body)) as server, pytest.raises(Problem) as caught:
        call(client_class, server.url, "recognize", b"x")
    assert caught.value.code == "unexpected_answer"


@both_clients
@pytest.mark.parametrize(
    ("status", "code"), [(502, "bad_gateway"), (301, "moved_permanently"), (599, "unexpected_answer")]
)
def test_an_error_page_of_a_proxy_raises_a_problem_with_its_status(
    client_class: ClientClass, status: int, code: str
) -> None:
    with (
        scripted(Reply(status, b"<html>", {"Content-Type": "text/html"})) as server,
        pytest.raises(Problem) as caught,
    ):
        call(client_class, server.url, "recognize", b"x")
    assert (caught.value.status, caught.value.code, caught.value.errors) == (status, code, [])
    assert f"answered {status}" in str(caught.value)


@both_clients
def test_ready_and_wait_ready(client_class: ClientClass) -> None:
    loading, ready = refusal(503, code="model_loading"), Reply(body=b'{"status": "ready"}')
    with scripted(loading, ready) as server:
        assert call(client_class, server.url, "ready") is False
        assert call(client_class, server.url, "ready") is True
    with scripted(loading, loading, ready) as server:
        call(client_class, server.url, "wait_ready", 10)
    assert len(server.received) == 3
    with scripted(refusal(404)) as server, pytest.raises(Problem):
        call(client_class, server.url, "ready")
