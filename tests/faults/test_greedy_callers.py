"""One caller, at another address than the clients beside it, takes all that it can of what is limited."""

from __future__ import annotations

import json
import socket
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect as open_stream

from loadtests.common.process_resources import peak_memory, resident_memory
from tests.api.sockets import head
from tests.api.stream.talking import SECOND, START
from tests.audio_samples import encode, speech
from tests.faults.background_clients import BackgroundClients
from tests.faults.conftest import Observe
from tests.faults.service import TIMEOUT, running, until

GREEDY = ("127.0.0.2", 0)
"""The address of the greedy caller."""

NUMBER = 200
"""Connections of the greedy caller."""

LONG = encode("wav-s16", np.tile(speech(), 8), 16_000)
MEMORY_MB = 400
"""More than the answers take that one caller's share of the permits allows."""

pytestmark = pytest.mark.slow


@contextmanager
def greedy_connection(port: int) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT, source_address=GREEDY) as connection:
        yield connection


def send_slowly(port: int) -> str:
    """Send a body with 10 bytes per second; the status."""
    answer = b""
    with greedy_connection(port) as connection, suppress(ConnectionError):
        connection.sendall(head(1_000_000) + bytes(50))
        connection.settimeout(0.1)
        while not answer:
            try:
                answer = connection.recv(1000)
            except TimeoutError:
                connection.sendall(b"x")
    return answer[9:12].decode()


def test_slow_uploads_of_one_caller(tmp_path: Path, observe: Observe) -> None:
    """One caller sends 200 bodies at 10 bytes per second again and again, with 5 other clients active"""
    found: Counter[str] = Counter()
    with running(tmp_path, "--body-idle-timeout", "1") as service, BackgroundClients(service.url) as clients:
        with ThreadPoolExecutor(NUMBER) as pool:
            for _ in range(3):
                found.update(pool.map(lambda _: send_slowly(service.port), range(NUMBER)))
        clients.wait_for(10)
    clients.assert_undisturbed()
    assert found.keys() == {"408", "429"}
    observe(
        f"{found['408']} times 408 after a second, {found['429']} times 429; {clients.statuses[200]} correct answers "
        "to the other clients, none refused"
    )


def talk_slowly(port: int) -> str:
    """Open a stream and send one sample ten times a second; the code of its problem."""
    with greedy_connection(port) as connection:
        try:
            with open_stream(f"ws://127.0.0.1:{port}/stream", sock=connection, proxy=None) as stream:
                stream.send(START)
                event = json.loads(stream.recv())
                while event["type"] != "problem":
                    stream.send(b"\0\0")
                    with suppress(TimeoutError):
                        event = json.loads(stream.recv(0.1))
                return str(event["code"])
        except InvalidStatus as refused:
            return str(json.loads(refused.response.body or b"")["code"])
        except ConnectionClosed as closed:
            return "" if closed.rcvd is None else closed.rcvd.reason


def test_streams_of_one_caller(tmp_path: Path, observe: Observe) -> None:
    """One caller opens 200 streams and sends one sample at a time, while others open streams and send requests"""
    answered = 0
    with (
        running(tmp_path, "--stream-idle-timeout", "3") as service,
        BackgroundClients(service.url) as clients,
        ThreadPoolExecutor(NUMBER) as pool,
    ):
        greedy = [pool.submit(talk_slowly, service.port) for _ in range(NUMBER)]
        until(lambda: service.metrics()["ser_streams"] >= 64)
        while not all(each.done() for each in greedy):
            with open_stream(f"ws://127.0.0.1:{service.port}/stream", proxy=None) as stream:
                stream.send(START)
                stream.send(SECOND)
                stream.send('{"type":"end"}')
                events = [json.loads(each)["type"] for each in stream]
            assert events[-1] == "result"
            answered += 1
    clients.assert_undisturbed()
    found = Counter(each.result() for each in greedy)
    assert found == {"stream_idle": 64, "caller_limit": NUMBER - 64}
    assert answered > 1
    observe(
        f"{found['stream_idle']} times `stream_idle` after 3 s, {found['caller_limit']} times 429; {answered} streams "
        f"of others with their result, and {clients.statuses[200]} correct answers, none refused"
    )


def test_answers_of_one_caller_that_are_not_read(tmp_path: Path, observe: Observe) -> None:
    """One caller sends 200 uploads with large answers and reads none, with 5 other clients active"""
    with running(tmp_path) as service, ExitStack() as stack:
        service.saturate()
        before = resident_memory(service.process.pid)

        def ask(_: int) -> socket.socket:
            connection = stack.enter_context(greedy_connection(service.port))
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            with suppress(ConnectionError):
                connection.sendall(head(len(LONG), "/recognize?granularity=frame&embedding=frame&trim=false") + LONG)
            return connection

        with BackgroundClients(service.url) as clients, ThreadPoolExecutor(20) as pool:
            connections = list(pool.map(ask, range(NUMBER)))
            clients.wait_for(20)
            found = Counter(each.recv(12)[9:].decode() for each in connections)
            peak = peak_memory(service.process.pid) - before
            stack.close()
        clients.assert_undisturbed()
        service.idle()
        kept = resident_memory(service.process.pid) - before
    assert found.keys() == {"200", "429"}
    assert peak < MEMORY_MB
    observe(
        f"{found['200']} times 200, {found['429']} times 429; peak memory +{peak:.0f} MB, +{kept:.0f} MB afterwards; "
        f"{clients.statuses[200]} correct answers to the other clients, none refused"
    )
