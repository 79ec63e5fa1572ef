"""Clients that disconnect, at every stage of a request, or do not read their answer."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from service.api.server.http_protocol import UnreadResponseProtocol
from tests.api.sockets import head
from tests.audio_samples import encode, speech
from tests.faults.background_clients import BackgroundClients, ask
from tests.faults.conftest import Observe
from tests.faults.service import HealthWatch, RunningService, connect, running, until
from tests.faults.test_worker import command
from tests.inference.fake_backend import HOLD

CLIP = encode("wav-s16", speech(seconds=1), 16_000)
COMPRESSED = encode("webm", np.tile(speech(48_000), 3), 48_000)
LONG = encode("wav-s16", np.tile(speech(), 8), 16_000)
LONGEST = encode("wav-s16", np.tile(speech(), 60), 16_000)
FORM = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
FRAMES = "/recognize?embedding=frame&trim=false"


@dataclass(frozen=True, slots=True)
class DisconnectStage:
    """When a client disconnects.

    Attributes:
        sends: the bytes that it sends first.
        waits: seconds that it waits then.
        reads: bytes of the answer that it then reads.
        counted: whether the server has received a request by then.
        busy: whether the model runs another clip at that time.
    """

    sends: bytes
    waits: float = 0.0
    reads: int = 0
    counted: bool = True
    busy: bool = False


STAGES = {
    "before its headers": DisconnectStage(b"", counted=False),
    "within its headers": DisconnectStage(b"POST /recognize HTTP/1.1\r\nHost: localhost\r\nContent-", counted=False),
    "before its body": DisconnectStage(head(len(CLIP)), 0.02),
    "within its body": DisconnectStage(head(len(CLIP)) + CLIP[:9000], 0.02),
    "within a form": DisconnectStage(
        head(len(CLIP), media="multipart/form-data; boundary=x") + FORM + CLIP[:9000], 0.02
    ),
    "within a chunk": DisconnectStage(head(None) + b"5000\r\n" + CLIP[:9000], 0.02),
    "at the end of its body": DisconnectStage(head(len(CLIP)) + CLIP),
    "while it is decoded": DisconnectStage(head(len(COMPRESSED)) + COMPRESSED, 0.02),
    "in the queue": DisconnectStage(head(len(CLIP)) + CLIP, 0.2, busy=True),
    "while the model runs": DisconnectStage(head(len(LONG), FRAMES) + LONG, 0.1),
    "while the answer is sent": DisconnectStage(head(len(LONG), FRAMES) + LONG, reads=1),
}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    with running(tmp_path_factory.mktemp("disconnects")) as started:
        yield started


def leave(port: int, stage: DisconnectStage, reset: bool) -> None:
    """Connect, send and disconnect: with a TCP reset, which drops data in transit, or with an orderly close."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(stage.sends)
        time.sleep(stage.waits)
        if stage.reads:
            connection.recv(stage.reads)
        if reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def test_some_clients_leave(service: RunningService) -> None:
    """The short form of the next test, which is slow."""
    leave_at_every_stage(service, 2)


@pytest.mark.slow
def test_clients_leave(service: RunningService, observe: Observe) -> None:
    """Clients disconnect at every stage of a request, half of them with a TCP reset, with 5 other clients active"""
    observe(leave_at_every_stage(service, 50))


def leave_at_every_stage(service: RunningService, number: int) -> str:
    """Disconnect `number` clients at each stage; returns the text for the report."""
    before, counted = service.saturate(), service.idle()
    expected = 0
    with HealthWatch(service) as health, BackgroundClients(service.url) as clients, ThreadPoolExecutor(20) as pool:
        for stage in STAGES.values():
            if stage.busy:
                holding = threading.Thread(target=hold, args=(service.url, 1.0))
                holding.start()
                time.sleep(0.1)
                expected += 1
            list(pool.map(lambda n, stage=stage: leave(service.port, stage, n % 2 == 0), range(number)))
            expected += number * stage.counted
            if stage.busy:
                holding.join()
    clients.assert_undisturbed()
    after = service.idle()
    statuses = after.since(counted)
    cancelled = after["ser_requests_cancelled_total"] - counted["ser_requests_cancelled_total"]
    assert sum(statuses.values()) == expected + clients.statuses.total(), "every request is counted"
    assert statuses.keys() == {"200", "499"}
    # Requests whose client disconnects in the body or in the queue are always cancelled; others may be answered first.
    sure = number * sum(stage.waits > 0 and stage.counted for stage in list(STAGES.values())[:6])
    assert statuses["499"] >= sure
    assert cancelled >= sure
    assert (health.live, health.ready) == ([200], [200])
    resources = service.settled_resources(before)
    assert resources.within(before), (before, resources)
    return (
        f"{number} at each of {len(STAGES)} stages: {statuses['499']} times 499, their clips dropped; "
        f"{clients.statuses[200]} correct answers to the other clients; {resources} before and after"
    )


def hold(url: str, seconds: float) -> None:
    with connect(url) as client:
        assert ask(client, command(HOLD, seconds)).status_code == 200


@pytest.mark.slow
def test_answers_that_nobody_reads(tmp_path: Path, observe: Observe) -> None:
    """Clients do not read large answers and keep their connections open, with 5 other clients active"""
    number = 3
    with running(tmp_path) as service, ExitStack() as stack:
        before = service.saturate()
        for _ in range(number):
            connection = stack.enter_context(socket.socket())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(("127.0.0.1", service.port))
            connection.sendall(head(len(LONGEST), FRAMES) + LONGEST)
        until(lambda: service.metrics()["ser_audio_seconds_total"] >= 60 * number)
        began = time.monotonic()
        assert service.resources().files["socket"] >= before.files["socket"] + number, "the connections are still open"
        with BackgroundClients(service.url) as clients:
            time.sleep(UnreadResponseProtocol.unread_timeout)
        clients.assert_undisturbed()
        resources = service.settled_resources(before)
        took = time.monotonic() - began
        assert resources.within(before), (before, resources)
    observe(
        f"{number} connections closed within {took:.0f} s (limit: 30 s without reading); {clients.statuses[200]} "
        f"correct answers to the other clients; {resources} before and after"
    )
