"""When calls are made again, and when not; over real sockets."""

from __future__ import annotations

import io
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from emotion2vec_client import Client, Disconnected, Problem, Retries, TimedOut, Unreachable
from emotion2vec_client.retries import Pace, seconds_until

from loadtests.common.ports import held_port
from tests.client.either import KINDS, call, calls
from tests.client.scripted import Reply, refusal, scripted

either = pytest.mark.parametrize("kind", KINDS)


@either
@pytest.mark.parametrize("status", [429, 503])
def test_a_refused_call_is_made_again_with_the_whole_file_and_the_same_id(
    kind: str, status: int, tmp_path: Path
) -> None:
    path = tmp_path / "call.wav"
    path.write_bytes(b"a" * 1_000_000)
    with scripted(refusal(status), refusal(status), Reply()) as server:
        assert call(kind, server.url, "recognize", path)["label"] == "happy"
    assert [asked.body for asked in server.asked] == [path.read_bytes()] * 3
    assert len({asked.headers["x-request-id"] for asked in server.asked}) == 1


@either
def test_the_files_of_a_batch_are_read_again_from_their_beginning(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "one.wav"
    path.write_bytes(b"1" * 100_000)
    opened = io.BytesIO(b"2" * 100_000)
    opened.read(7)
    with scripted(refusal(), Reply(body=b'{"items": []}')) as server:
        call(kind, server.url, "recognize_batch", [path, opened, b"3"])
    first, second = (asked.body for asked in server.asked)
    assert first == second
    assert first.count(b"1" * 100_000) == first.count(b"2" * 100_000) == 1
    assert b'filename="one.wav"' in first


@either
def test_a_wait_that_would_take_too_long_is_not_begun(kind: str) -> None:
    began = time.monotonic()
    with scripted(refusal(retry_after="120")) as server, pytest.raises(Problem) as caught:
        call(kind, server.url, "recognize", b"x")
    assert caught.value.retry_after == 120
    assert len(server.asked) == 1
    assert time.monotonic() - began < 60


@either
def test_a_call_is_made_so_many_times_and_no_more(kind: str) -> None:
    with scripted(refusal()) as server, pytest.raises(Problem) as caught:
        call(kind, server.url, "recognize", b"x", settings={"retries": Retries(attempts=3)})
    assert len(server.asked) == 3
    assert (caught.value.status, caught.value.code, caught.value.request_id) == (429, "queue_full", "from-the-server")
    assert caught.value.errors[0]["field"] == "trim"


@either
@pytest.mark.parametrize("status", [401, 413, 415, 422, 500, 502, 504])
def test_other_problems_are_told_at_once(kind: str, status: int) -> None:
    with scripted(refusal(status, retry_after="0", code="some_code"), Reply()) as server, pytest.raises(Problem):
        call(kind, server.url, "recognize", b"x")
    assert len(server.asked) == 1


@either
@pytest.mark.parametrize("fault", ["no answer", "half"])
def test_what_the_server_may_have_worked_on_is_not_sent_again(kind: str, fault: str) -> None:
    with scripted(Reply(fault=fault), Reply()) as server, pytest.raises(Disconnected):  # type: ignore[arg-type]
        call(kind, server.url, "recognize", b"x")
    assert len(server.asked) == 1


@either
def test_what_changes_nothing_is_asked_again_after_a_lost_connection(kind: str) -> None:
    with scripted(Reply(fault="no answer"), Reply(body=b'{"models": []}')) as server:
        assert call(kind, server.url, "models") == []
    assert len(server.asked) == 2


@either
def test_a_server_that_is_not_there_is_tried_again_until_it_is(kind: str) -> None:
    began = time.monotonic()
    with held_port() as port, pytest.raises(Unreachable):
        call(kind, f"http://127.0.0.1:{port}", "recognize", b"x", settings={"retries": Retries(attempts=2)})
    assert 0.25 <= time.monotonic() - began < 30


@either
def test_retry_after_is_obeyed_and_the_server_told_what_is_left_of_a_timeout(kind: str) -> None:
    with scripted(refusal(retry_after="1"), Reply()) as server:
        call(kind, server.url, "recognize", b"x", timeout=60, trim=False)
    told = [float(asked.path.partition("timeout=")[2]) for asked in server.asked]
    assert 40 < told[0] <= 60
    assert 40 < told[1] <= told[0] - 1
    assert server.moments()[1] >= 1.0


@either
def test_a_timeout_bounds_all_attempts(kind: str) -> None:
    with scripted(refusal(retry_after="1"), Reply()) as server, pytest.raises(Problem):
        call(kind, server.url, "recognize", b"x", timeout=0.9)
    assert len(server.asked) == 1


@either
def test_a_server_that_does_not_answer_is_given_up(kind: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(TimedOut):
            call(kind, url, "recognize", b"x", settings={"timeout": 0.2})


def test_threads_that_share_a_client_hold_back_together() -> None:
    replies = [refusal(retry_after="1"), Reply(pause=0.8)]
    with scripted(*replies) as server, Client(server.url) as client, ThreadPoolExecutor(4) as pool:
        assert len(list(pool.map(client.recognize, [b"x"] * 8))) == 8
    moments = server.moments()
    assert len(moments) == 9
    assert 1 <= sum(moment < 1.0 for moment in moments) <= 4  # those under way when the refusal came


@either
def test_a_call_does_not_wait_longer_for_others_than_it_may_take(kind: str) -> None:
    def work(do):  # type: ignore[no-untyped-def]
        with pytest.raises(Problem):
            do("recognize", b"x")
        with pytest.raises(Problem, match="429 queue_full") as caught:
            do("recognize", b"y", timeout=2, request_id="mine")
        assert caught.value.request_id == "mine"
        assert 110 < (caught.value.retry_after or 0) <= 150

    with scripted(refusal(retry_after="120"), Reply()) as server:
        calls(kind, server.url, work)
    assert len(server.asked) == 1


def test_a_hold_ends_scattered_and_never_early() -> None:
    def refused(seconds: float) -> Problem:
        return Problem("No.", "1", status=429, code="queue_full", title="No", errors=[], retry_after=seconds)

    pace = Pace()
    assert pace.pause(0, "2") == 0
    pace.hold(refused(10))
    pace.hold(refused(2))
    pauses = {pace.pause(20, "2") for _ in range(50)}
    assert len(pauses) > 40
    assert 9.9 < min(pauses) <= max(pauses) <= 12.5


def test_retry_after_is_seconds_or_a_date() -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    assert seconds_until("17") == 17
    assert 28 < (seconds_until(soon) or 0) <= 30
    assert seconds_until("Fri, 01 Jan 2021 00:00:00 GMT") == 0
    assert seconds_until("Fri, 01 Jan 2021 00:00:00 -0000") == 0
    assert seconds_until("9" * 400) == 86_400
    assert [seconds_until(text) for text in (None, "", "soon", "-1", "1.5", "٣")] == [None] * 6


@pytest.mark.parametrize(("attempts", "seconds"), [(0, 1.0), (1, -1.0)])
def test_retries_that_make_no_sense_are_refused(attempts: int, seconds: float) -> None:
    with pytest.raises(ValueError, match="attempts"):
        Retries(attempts, seconds)
