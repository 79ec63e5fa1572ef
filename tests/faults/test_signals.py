"""The process gets SIGTERM or SIGKILL under load."""

from __future__ import annotations

import signal
import socket
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from loadtests.common.ports import held_port
from tests.api.sockets import head
from tests.audio_samples import encode, speech
from tests.faults.background_clients import KnownRequest, answer_of, known_requests
from tests.faults.conftest import Observe
from tests.faults.service import TIMEOUT, HealthWatch, by_status_text, connect, running, until
from tests.preprocess.children import state

pytestmark = pytest.mark.slow
LOAD_CLIENTS = 30


@dataclass
class LoadClients:
    """Many clients, each of which sends its next request as soon as it has an answer, until the server is gone."""

    url: str
    requests: list[KnownRequest]
    statuses: Counter[int] = field(default_factory=Counter)

    def run(self, number: int) -> None:
        request = self.requests[number % len(self.requests)]
        with connect(self.url) as client:
            while True:
                try:
                    response = request.send(client)
                except httpx.TransportError:
                    # The server is gone, or it closed the connection while the request was in transit: then the
                    # request was not processed, or the server's counts would differ from the clients'.
                    return
                self.statuses[response.status_code] += 1
                if response.status_code == 200:
                    assert answer_of(response) == request.answer
                else:
                    assert (response.status_code, response.json()["code"]) == (503, "draining")
                    assert int(response.headers["retry-after"]) >= 1
                    time.sleep(0.05)


def test_sigterm_under_load(tmp_path: Path, observe: Observe) -> None:
    """SIGTERM while 30 clients send requests without a pause and 5 uploads are in progress"""
    body = encode("wav-s16", speech(), 16_000)
    with running(tmp_path) as service, ThreadPoolExecutor(LOAD_CLIENTS + 5) as pool:
        load = LoadClients(service.url, known_requests(service.url))
        asked = len(load.requests)
        clients = [pool.submit(load.run, number) for number in range(LOAD_CLIENTS)]
        uploads = [socket.create_connection(("127.0.0.1", service.port)) for _ in range(5)]
        for upload in uploads:
            upload.sendall(head(len(body)) + body[:9000])
        time.sleep(1)
        in_flight = service.metrics()["ser_requests_in_flight"]
        with HealthWatch(service) as health:
            time.sleep(0.2)
            began = time.monotonic()
            service.process.send_signal(signal.SIGTERM)
            until(lambda: load.statuses[503] > 0)
            for upload in uploads:  # accepted before the signal, so the server waits for them
                upload.sendall(body[9000:])
            answers = [upload.recv(12) for upload in uploads]
            for each in clients:
                each.result(timeout=TIMEOUT)
            status = service.process.wait(TIMEOUT)
            took = time.monotonic() - began
        for upload in uploads:
            upload.close()
        assert status == 0
        assert in_flight > 10
        assert answers == [b"HTTP/1.1 200"] * 5
        expected = load.statuses + Counter({200: asked + 5})
        assert service.metrics().statuses() == by_status_text(expected), "every accepted request is answered"
        assert health.live in ([200, 0], [200, 503, 0])
        assert health.ready == [200, 503, 0]
        assert "Traceback" not in service.log.read_text()
    observe(
        f"{int(in_flight)} requests in flight: all answered, including the uploads; {load.statuses[503]} new requests "
        f"got 503 `draining`; status 0 after {took:.1f} s; the server's final counts equal the clients'"
    )


@pytest.fixture
def port() -> Iterator[str]:
    with held_port() as port:
        yield str(port)


def test_sigkill_under_load(tmp_path: Path, port: str, observe: Observe) -> None:
    """SIGKILL while clients send requests and files are decoded, then a restart on the same port"""
    with running(tmp_path, "--port", port) as service, ThreadPoolExecutor(10) as pool:
        before = service.saturate()
        assert before.children
        requests = known_requests(service.url)

        def ask_until_dead(request: KnownRequest) -> None:
            with connect(service.url) as client:
                while True:
                    try:
                        request.send(client)
                    except httpx.TransportError:
                        return

        clients = [pool.submit(ask_until_dead, requests[number % 5]) for number in range(10)]
        time.sleep(1)
        service.process.kill()
        service.process.wait(TIMEOUT)
        for each in clients:
            each.result(timeout=TIMEOUT)
        began = time.monotonic()
        until(lambda: not any(map(alive, before.children)))
        gone = time.monotonic() - began
        cold = service.ready_after
    with running(tmp_path, "--port", port) as again:
        with connect(again.url) as client:
            assert [answer_of(request.send(client)) for request in requests] == [each.answer for each in requests]
        assert again.ready_after < 2 * cold + 1
    observe(
        f"its {len(before.children)} child processes ended after {gone:.2f} s; ready again "
        f"{again.ready_after:.1f} s after the start (first start: {cold:.1f} s), with the same answers"
    )


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return state(pid) != "Z"
    except OSError:
        return False
