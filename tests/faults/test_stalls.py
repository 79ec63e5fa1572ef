"""Clients that stall after the beginning of a request, or send it byte by byte."""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from tests.api.sockets import head
from tests.audio_samples import encode, speech
from tests.faults.background_clients import BackgroundClients
from tests.faults.conftest import Observe
from tests.faults.service import TIMEOUT, HealthWatch, RunningService, running

CLIP = encode("wav-s16", speech(seconds=1), 16_000)
FLAGS = ("--header-timeout", "1", "--body-idle-timeout", "1", "--body-timeout", "3")
pytestmark = pytest.mark.slow


@pytest.fixture
def service(tmp_path: Path) -> Iterator[RunningService]:
    with running(tmp_path, *FLAGS) as started:
        yield started


def stall(port: int, sends: bytes, drip: float | None = None) -> tuple[bytes, float]:
    """Send the beginning of a request, then nothing or a byte every `drip` seconds.

    Returns the answer and the seconds until the server closes the connection.
    """
    began = time.monotonic()
    answer = b""
    with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT) as connection, suppress(ConnectionError):
        connection.sendall(sends)
        if drip is not None:
            connection.settimeout(drip)
        while time.monotonic() - began < TIMEOUT:
            try:
                piece = connection.recv(65_536)
            except TimeoutError:
                connection.sendall(b"x")
                continue
            if not piece:
                break
            answer += piece
    return answer, time.monotonic() - began


STALLS: dict[str, tuple[Callable[[int], tuple[bytes, float]], bytes, float]] = {
    "before headers": (lambda port: stall(port, b""), b"", 1),
    "within headers": (lambda port: stall(port, b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX: "), b"", 1),
    "headers byte by byte": (
        lambda port: stall(port, b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX: ", 0.2),
        b"",
        1,
    ),
    "before the body": (lambda port: stall(port, head(len(CLIP))), b"HTTP/1.1 408", 1),
    "within the body": (lambda port: stall(port, head(len(CLIP)) + CLIP[:9000]), b"HTTP/1.1 408", 1),
    "body byte by byte": (lambda port: stall(port, head(len(CLIP)) + CLIP[:9000], 0.2), b"HTTP/1.1 408", 3),
}


def test_clients_stall(service: RunningService, observe: Observe) -> None:
    """50 clients stall in their headers or bodies, or send byte by byte, with 5 other clients active"""
    kinds = [kind for kind in STALLS.values() for _ in range(50 // len(STALLS) + 1)][:50]
    before, counted = service.saturate(), service.idle()
    with HealthWatch(service) as health, BackgroundClients(service.url) as clients, ThreadPoolExecutor(50) as pool:
        ends = list(pool.map(lambda kind: kind[0](service.port), kinds))
    clients.assert_undisturbed()
    for (_, expected, limit), (answer, seconds) in zip(kinds, ends, strict=True):
        assert answer.startswith(expected)
        assert bool(answer) == bool(expected)
        assert limit - 0.1 <= seconds < limit + 5
    refused = sum(answer.startswith(b"HTTP/1.1 408") for answer, _ in ends)
    assert service.idle().since(counted) == {"200": clients.statuses[200], "408": refused}
    assert (health.live, health.ready) == ([200], [200])
    resources = service.settled_resources(before)
    assert resources.within(before), (before, resources)
    observe(
        f"{refused} times 408, {50 - refused} connections closed, each at its limit (1 s idle, 3 s in all); "
        f"{clients.statuses[200]} correct answers to the other clients; {resources} before and after"
    )


def test_more_clients_stall_than_are_served_at_a_time(service: RunningService, observe: Observe) -> None:
    """200 clients stall in their bodies, more than are processed at a time, with 5 other clients active"""
    before, counted = service.saturate(), service.idle()
    number = 200
    with HealthWatch(service) as health, BackgroundClients(service.url, tolerated=(429,)) as clients:
        with ThreadPoolExecutor(number) as pool:
            ends = list(pool.map(lambda _: stall(service.port, head(2 << 20) + CLIP[:9000]), range(number)))
        served = clients.statuses[200]
        time.sleep(2)
        assert clients.statuses[200] > served, "the other clients get answers again afterwards"
    clients.assert_undisturbed()
    found = Counter(answer[9:12] for answer, _ in ends)
    assert found.keys() == {b"408", b"429"}
    assert service.idle().since(counted) == {
        "200": clients.statuses[200],
        "408": found[b"408"],
        "429": found[b"429"] + clients.statuses[429],
    }
    assert (health.live, health.ready) == ([200], [200])
    resources = service.settled_resources(before)
    assert resources.within(before), (before, resources)
    observe(
        f"{found[b'408']} times 408, {found[b'429']} times 429; {clients.statuses[200]} correct answers to "
        f"the other clients, and {clients.statuses[429]} times 429 meanwhile; {resources} before and after"
    )
