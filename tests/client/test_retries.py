"""Which failed requests are sent again, and when; over real sockets."""

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
from emotion2vec_client.retries import SharedDelay, parse_retry_after

from loadtests.common.ports import held_port
from tests.client.both_clients import ClientClass, both_clients, call, with_client
from tests.client.scripted_server import Reply, refusal, scripted


@both_clients
@pytest.mark.parametrize("status", [429, 503])
def test_a_refused_request_is_sent_again_with_the_whole_file_and_the_same_id(
    client_class: ClientClass, status: int, tmp_path: Path
) -> None:
    path = tmp_path / "call.wav"
    path.write_bytes(b"a" * 1_000_000)
    with scripted(refusal(status), refusal(status), Reply()) as server:
        assert call(client_class, server.url, "recognize", path)["label"] == "happy"
    assert [request.body for request in server.received] == [path.read_bytes()] * 3
    assert len({request.headers["x-request-id"] for request in server.received}) == 1


@both_clients
def test_a_retry_of_a_batch_reads_the_files_from_their_beginning(client_class: ClientClass, tmp_path: Path) -> None:
    path = tmp_path / "one.wav"
    path.write_bytes(b"1" * 100_000)
    opened = io.BytesIO(b"2" * 100_000)
    opened.read(7)
    with scripted(refusal(), Reply(body=b'{"items": []}')) as server:
        call(client_class, server.url, "recognize_batch", [path, opened, b"3"])
    first, second = (request.body for request in server.received)
    assert first == second
    assert first.count(b"1" * 100_000) == first.count(b"2" * 100_000) == 1
    assert b'filename="one.wav"' in first


@both_clients
def test_a_delay_longer_than_the_retry_time_is_not_started(client_class: ClientClass) -> None:
    began = time.monotonic()
    with scripted(refusal(retry_after="120")) as server, pytest.raises(Problem) as caught:
        call(client_class, server.url, "recognize", b"x")
    assert caught.value.retry_after == 120
    assert len(server.received) == 1
    assert time.monotonic() - began < 60


@both_clients
def test_the_number_of_attempts_is_limited(client_class: ClientClass) -> None:
    with scripted(refusal()) as server, pytest.raises(Problem) as caught:
        call(client_class, server.url, "recognize", b"x", settings={"retries": Retries(attempts=3)})
    assert len(server.received) == 3
    assert (caught.value.status, caught.value.code, caught.value.request_id) == (429, "queue_full", "from-the-server")
    assert caught.value.errors[0]["field"] == "trim"


@both_clients
@pytest.mark.parametrize("status", [401, 413, 415, 422, 500, 502, 504])
def test_other_problems_are_not_retried(client_class: ClientClass, status: int) -> None:
    with scripted(refusal(status, retry_after="0", code="some_code"), Reply()) as server, pytest.raises(Problem):
        call(client_class, server.url, "recognize", b"x")
    assert len(server.received) == 1


@both_clients
@pytest.mark.parametrize("fault", ["no answer", "half"])
def test_a_request_that_may_have_been_processed_is_not_sent_again(client_class: ClientClass, fault: str) -> None:
    with scripted(Reply(fault=fault), Reply()) as server, pytest.raises(Disconnected):  # type: ignore[arg-type]
        call(client_class, server.url, "recognize", b"x")
    assert len(server.received) == 1


@both_clients
def test_a_get_request_is_sent_again_after_a_lost_connection(client_class: ClientClass) -> None:
    with scripted(Reply(fault="no answer"), Reply(body=b'{"models": []}')) as server:
        assert call(client_class, server.url, "models") == []
    assert len(server.received) == 2


@both_clients
def test_an_unreachable_server_is_tried_again(client_class: ClientClass) -> None:
    began = time.monotonic()
    with held_port() as port, pytest.raises(Unreachable):
        call(client_class, f"http://127.0.0.1:{port}", "recognize", b"x", settings={"retries": Retries(attempts=2)})
    assert 0.25 <= time.monotonic() - began < 30


@both_clients
def test_retry_after_is_obeyed_and_the_remaining_timeout_is_sent(client_class: ClientClass) -> None:
    with scripted(refusal(retry_after="1"), Reply()) as server:
        call(client_class, server.url, "recognize", b"x", timeout=60, trim=False)
    timeouts = [float(request.path.partition("timeout=")[2]) for request in server.received]
    assert 40 < timeouts[0] <= 60
    assert 40 < timeouts[1] <= timeouts[0] - 1
    assert server.moments()[1] >= 1.0


@both_clients
def test_a_timeout_covers_all_attempts(client_class: ClientClass) -> None:
    with scripted(refusal(retry_after="1"), Reply()) as server, pytest.raises(Problem):
        call(client_class, server.url, "recognize", b"x", timeout=0.9)
    assert len(server.received) == 1


@both_clients
def test_a_server_that_does_not_answer_raises_timed_out(client_class: ClientClass) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(TimedOut):
            call(client_class, url, "recognize", b"x", settings={"timeout": 0.2})


def test_a_refusal_delays_all_threads_that_share_a_client() -> None:
    replies = [refusal(retry_after="1"), Reply(pause=0.8)]
    with scripted(*replies) as server, Client(server.url) as client, ThreadPoolExecutor(4) as pool:
        assert len(list(pool.map(client.recognize, [b"x"] * 8))) == 8
    moments = server.moments()
    assert len(moments) == 9
    assert 1 <= sum(moment < 1.0 for moment in moments) <= 4  # sent before the refusal arrived


@both_clients
def test_a_request_does_not_wait_longer_than_its_timeout_for_a_shared_delay(client_class: ClientClass) -> None:
    def use(do):  # type: ignore[no-untyped-def]
        with pytest.raises(Problem):
            do("recognize", b"x")
        with pytest.raises(Problem, match="429 queue_full") as caught:
            do("recognize", b"y", timeout=2, request_id="mine")
        assert caught.value.request_id == "mine"
        assert 110 < (caught.value.retry_after or 0) <= 150

    with scripted(refusal(retry_after="120"), Reply()) as server:
        with_client(client_class, server.url, use)
    assert len(server.received) == 1


def test_a_shared_delay_has_jitter_and_never_ends_early() -> None:
    def refused(seconds: float) -> Problem:
        return Problem("No.", "1", status=429, code="queue_full", title="No", errors=[], retry_after=seconds)

    delay = SharedDelay()
    assert delay.seconds(0, "2") == 0
    delay.extend(refused(10))
    delay.extend(refused(2))
    delays = {delay.seconds(20, "2") for _ in range(50)}
    assert len(delays) > 40
    assert 9.9 < min(delays) <= max(delays) <= 12.5


def test_retry_after_is_a_number_of_seconds_or_a_date() -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    assert parse_retry_after("17") == 17
    assert 28 < (parse_retry_after(soon) or 0) <= 30
    assert parse_retry_after("Fri, 01 Jan 2021 00:00:00 GMT") == 0
    assert parse_retry_after("Fri, 01 Jan 2021 00:00:00 -0000") == 0
    assert parse_retry_after("9" * 400) == 86_400
    assert [parse_retry_after(text) for text in (None, "", "soon", "-1", "1.5", "٣")] == [None] * 6


@pytest.mark.parametrize(("attempts", "seconds"), [(0, 1.0), (1, -1.0)])
def test_invalid_retries_raise_value_error(attempts: int, seconds: float) -> None:
    with pytest.raises(ValueError, match="attempts"):
        Retries(attempts, seconds)
