"""The processes that decode are killed, or stop."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.audio_samples import encode, speech
from tests.faults.background_clients import BackgroundClients, ask
from tests.faults.conftest import Observe
from tests.faults.service import TIMEOUT, HealthWatch, RunningService, by_status_text, connect, running, until

pytestmark = pytest.mark.slow


def signal_decoders(service: RunningService, number: signal.Signals) -> int:
    """Send a signal to all decoders, of which there is at least one; returns how many got it."""
    until(lambda: bool(service.resources().children))
    reached = 0
    for process in service.resources().children:
        try:
            os.kill(process, number)
            reached += 1
        except ProcessLookupError:
            continue  # it was replaced
    return reached


def test_decoders_are_killed(tmp_path: Path, observe: Observe) -> None:
    """The processes that decode are killed again and again, with 5 other clients active"""
    with running(tmp_path) as service:
        before, counted = service.saturate(), service.idle()
        killed = 0
        with HealthWatch(service) as health, BackgroundClients(service.url, tolerated=(503,)) as clients:
            for _ in range(20):
                killed += signal_decoders(service, signal.SIGKILL)
                clients.wait_for(5)
        clients.assert_undisturbed()
        assert set(clients.codes) <= {"decoder_unavailable"}
        assert service.idle().since(counted) == by_status_text(clients.statuses)
        assert (health.live, health.ready) == ([200], [200])
        resources = service.settled_resources(before)
        assert resources.within(before), (before, resources)
    observe(
        f"{killed} processes killed: {clients.statuses[200]} correct answers and {clients.statuses[503]} times 503 "
        f"`decoder_unavailable`; {resources} before and after"
    )


def test_decoders_stop(tmp_path: Path, observe: Observe) -> None:
    """The processes that decode stop without ending (SIGSTOP), with 5 other clients active"""
    with running(tmp_path) as service:
        before, counted = service.saturate(), service.idle()
        with HealthWatch(service) as health, BackgroundClients(service.url) as clients:
            stopped = service.resources().children
            signal_decoders(service, signal.SIGSTOP)
            until(lambda: not stopped & service.resources().children)
            clients.wait_for(10)
        clients.assert_undisturbed()
        assert service.idle().since(counted) == by_status_text(clients.statuses)
        assert (health.live, health.ready) == ([200], [200])
        resources = service.settled_resources(before)
        assert resources.within(before), (before, resources)
    observe(
        f"{len(stopped)} processes replaced, their files decoded again; {clients.statuses[200]} correct answers to the "
        f"clients and no other; {resources} before and after"
    )


def test_sigterm_while_decoders_have_stopped(tmp_path: Path, observe: Observe) -> None:
    """SIGTERM while the processes that decode have stopped (SIGSTOP) with a file each"""
    with running(tmp_path, "--timeout", "1", "--drain-timeout", "1") as service, connect(service.url) as client:
        service.saturate()
        signal_decoders(service, signal.SIGSTOP)
        assert ask(client, encode("mp3", speech(), 16_000)).status_code == 504
        began = time.monotonic()
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(TIMEOUT) == 0
        took = time.monotonic() - began
        assert "Traceback" not in service.log.read_text()
    observe(f"504 at the deadline of the request; then status 0 {took:.1f} s after SIGTERM")
