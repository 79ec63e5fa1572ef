"""The process is asked to stop, or killed, under load."""

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
from tests.faults.callers import Question, answer_of, undisturbed
from tests.faults.conftest import Observe
from tests.faults.service import PATIENCE, HealthWatch, connect, running, texts, until
from tests.preprocess.children import state

pytestmark = pytest.mark.slow
CROWD = 30


@dataclass
class Crowd:
    """Many callers, each with its next question as soon as it has an answer, until nobody listens any more."""

    url: str
    questions: list[Question]
    statuses: Counter[int] = field(default_factory=Counter)

    def go_on(self, number: int) -> None:
        question = self.questions[number % len(self.questions)]
        with connect(self.url) as client:
            while True:
                try:
                    response = question.put(client)
                except httpx.TransportError:
                    # Nobody listens any more. Or the server has closed the connection when a question was just under
                    # way: then it has not seen that one, or its own counts would not agree with what was answered.
                    return
                self.statuses[response.status_code] += 1
                if response.status_code == 200:
                    assert answer_of(response) == question.answer
                else:
                    assert (response.status_code, response.json()["code"]) == (503, "draining")
                    assert int(response.headers["retry-after"]) >= 1
                    time.sleep(0.05)


def test_sigterm_under_load(tmp_path: Path, observe: Observe) -> None:
    """SIGTERM while 30 callers ask without a pause, and 5 uploads are under way"""
    body = encode("wav-s16", speech(), 16_000)
    with running(tmp_path) as service, ThreadPoolExecutor(CROWD + 5) as pool:
        crowd = Crowd(service.url, undisturbed(service.url))
        asked = len(crowd.questions)
        callers = [pool.submit(crowd.go_on, number) for number in range(CROWD)]
        uploads = [socket.create_connection(("127.0.0.1", service.port)) for _ in range(5)]
        for upload in uploads:
            upload.sendall(head(len(body)) + body[:9000])
        time.sleep(1)
        in_flight = service.metrics()["ser_requests_in_flight"]
        with HealthWatch(service) as health:
            time.sleep(0.2)
            began = time.monotonic()
            service.process.send_signal(signal.SIGTERM)
            until(lambda: crowd.statuses[503] > 0)
            for upload in uploads:  # accepted before the signal, so waited for
                upload.sendall(body[9000:])
            answers = [upload.recv(12) for upload in uploads]
            for each in callers:
                each.result(timeout=PATIENCE)
            status = service.process.wait(PATIENCE)
            took = time.monotonic() - began
        for upload in uploads:
            upload.close()
        assert status == 0
        assert in_flight > 10
        assert answers == [b"HTTP/1.1 200"] * 5
        expected = crowd.statuses + Counter({200: asked + 5})
        assert service.metrics().statuses() == texts(expected), "accepted is answered"
        assert health.live in ([200, 0], [200, 503, 0])
        assert health.ready == [200, 503, 0]
        assert "Traceback" not in service.log.read_text()
    observe(
        f"{int(in_flight)} requests in flight: all answered, the uploads too; {crowd.statuses[503]} new ones 503 "
        f"`draining`; status 0 after {took:.1f} s; the service's last counts equal the callers'"
    )


@pytest.fixture
def port() -> Iterator[str]:
    with held_port() as port:
        yield str(port)


def test_sigkill_under_load(tmp_path: Path, port: str, observe: Observe) -> None:
    """SIGKILL while callers ask and files are decoded, then a new start on the same port"""
    with running(tmp_path, "--port", port) as service, ThreadPoolExecutor(10) as pool:
        before = service.saturate()
        assert before.children
        questions = undisturbed(service.url)

        def ask_until_dead(question: Question) -> None:
            with connect(service.url) as client:
                while True:
                    try:
                        question.put(client)
                    except httpx.TransportError:
                        return

        callers = [pool.submit(ask_until_dead, questions[number % 5]) for number in range(10)]
        time.sleep(1)
        service.process.kill()
        service.process.wait(PATIENCE)
        for each in callers:
            each.result(timeout=PATIENCE)
        began = time.monotonic()
        until(lambda: not any(map(alive, before.children)))
        gone = time.monotonic() - began
        cold = service.ready_after
    with running(tmp_path, "--port", port) as again:
        with connect(again.url) as client:
            assert [answer_of(question.put(client)) for question in questions] == [each.answer for each in questions]
        assert again.ready_after < 2 * cold + 1
    observe(
        f"its {len(before.children)} child processes are gone after {gone:.2f} s; ready again "
        f"{again.ready_after:.1f} s after the start (first start: {cold:.1f} s), with the same answers"
    )


def alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has waited for is over all the same."""
    try:
        return state(pid) != "Z"
    except OSError:
        return False
