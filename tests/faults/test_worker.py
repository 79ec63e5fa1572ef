"""The thread that owns the model dies, its backend fails or breaks, or it hangs."""

from __future__ import annotations

import io
import signal
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
import soundfile

from tests.audio_samples import encode, speech
from tests.faults.background_clients import BackgroundClients, ask
from tests.faults.conftest import Observe
from tests.faults.program import FAIL_ALWAYS, FAIL_RELOADS
from tests.faults.service import TIMEOUT, HealthWatch, RunningService, by_status_text, connect, running, until
from tests.inference.fake_backend import BREAK, HOLD, KILL, OUT_OF_MEMORY

RELOADING = (503,)


def command(what: float, argument: float = 0.0) -> bytes:
    """A clip that makes the backend fail; see `tests.faults.program`."""
    samples = speech(seconds=0.5)
    samples[0, :2] = what, argument
    return encode("wav-f32", samples, 16_000)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    with running(tmp_path_factory.mktemp("worker")) as started:
        yield started


def send_command(service: RunningService, what: float, argument: float = 0.0) -> httpx.Response:
    with connect(service.url) as client:
        return ask(client, command(what, argument))


def wait_ready(service: RunningService) -> float:
    """Wait until the server is ready again; returns the seconds."""
    began = time.monotonic()
    until(lambda: service.health() == (200, 200))
    return time.monotonic() - began


def test_the_worker_thread_is_killed(service: RunningService, observe: Observe) -> None:
    """The worker thread is killed three times with 5 other clients active"""
    before, counted = service.saturate(), service.idle()
    restarts = []
    with HealthWatch(service) as health, BackgroundClients(service.url, tolerated=RELOADING) as clients:
        for _ in range(3):
            with service.loading_paused():
                killed = send_command(service, KILL)
                assert (killed.status_code, killed.json()["code"]) == (503, "worker_dead")
                until(lambda: health.ready[-1] == 503)
            restarts.append(wait_ready(service))
            until(lambda: health.ready[-1] == 200)
            clients.wait_for(10)
    clients.assert_undisturbed()
    after = service.idle()
    assert after["ser_worker_deaths_total"] - counted["ser_worker_deaths_total"] == 3
    assert health.live == [200]
    assert health.ready == [200, 503, 200, 503, 200, 503, 200]
    statuses = clients.statuses + Counter({503: 3})
    assert after.since(counted) == by_status_text(statuses)
    resources = service.settled_resources(before)
    assert resources.within(before), (before, resources)
    observe(
        f"{statuses.total()} requests: {statuses[200]} correct answers and {statuses[503]} times 503; ready after "
        f"at most {max(restarts):.2f} s; `/livez` 200 throughout; {resources} before and after"
    )


def test_the_backend_runs_out_of_memory(service: RunningService, observe: Observe) -> None:
    """The model runs out of memory on some clips with 5 other clients active"""
    counted = service.idle()
    with HealthWatch(service) as health, BackgroundClients(service.url) as clients:
        failed = [send_command(service, OUT_OF_MEMORY) for _ in range(3)]
    clients.assert_undisturbed()
    assert [(each.status_code, each.json()["code"]) for each in failed] == [(500, "inference_failed")] * 3
    after = service.idle()
    assert after["ser_worker_deaths_total"] == counted["ser_worker_deaths_total"]
    assert (health.live, health.ready) == ([200], [200])
    assert after.since(counted) == by_status_text(clients.statuses + Counter({500: 3}))
    observe(f"3 times 500 for those clips; {clients.statuses[200]} correct answers to the other clients; always ready")


@pytest.mark.parametrize(
    "what", [pytest.param(BREAK, marks=pytest.mark.slow, id="known"), pytest.param(FAIL_ALWAYS, id="unknown")]
)
def test_a_clip_breaks_the_backend(what: float, service: RunningService, observe: Observe) -> None:
    """A clip leaves the backend in a permanent error state, with 5 other clients active"""
    counted = service.idle()
    with HealthWatch(service) as health, BackgroundClients(service.url, tolerated=RELOADING) as clients:
        with ThreadPoolExecutor(1) as pool, service.loading_paused():
            breaking = pool.submit(send_command, service, what)
            until(lambda: health.ready[-1] == 503)
        broke = breaking.result()
        wait_ready(service)
        until(lambda: health.ready[-1] == 200)
        clients.wait_for(10)
    clients.assert_undisturbed()
    assert (broke.status_code, broke.json()["code"]) == (500, "inference_failed")
    after = service.idle()
    assert after["ser_worker_deaths_total"] - counted["ser_worker_deaths_total"] == 2
    assert after["ser_inference_failures_total"] - counted["ser_inference_failures_total"] == 1
    assert health.live == [200]
    assert health.ready[0] == 200
    assert after.since(counted) == by_status_text(clients.statuses + Counter({500: 1}))
    # Accepted requests are answered; requests during the reload are refused before they enter the queue.
    assert not clients.codes.keys() - {"model_loading", "worker_dead"}
    observe(
        f"the clip is tried on two backends, then 500; {clients.statuses[200]} correct answers to the other clients, "
        f"and {clients.statuses[503]} times 503 while the model was reloaded"
    )


@pytest.mark.slow
def test_an_error_lasts_as_long_as_the_process(tmp_path_factory: pytest.TempPathFactory, observe: Observe) -> None:
    """After a clip no backend can be loaded any more, as after some CUDA errors"""
    with running(tmp_path_factory.mktemp("reloads")) as service:
        with HealthWatch(service) as health:
            began = time.monotonic()
            response = send_command(service, FAIL_RELOADS)
            assert (response.status_code, response.json()["code"]) == (503, "worker_dead")
            late = send_command(service, HOLD)
            assert late.status_code == 503
            status = service.process.wait(TIMEOUT)
            took = time.monotonic() - began
        assert status == 1
        assert health.live == [200, 0]
        assert health.ready == [200, 503, 0]
        assert "could not be loaded again" in service.log.read_text()
        assert service.metrics().statuses() == {"503": 2}
    observe(f"503 at once, never ready again; after 6 failed loads ({took:.0f} s) the process ends with status 1")


@pytest.mark.slow
def test_a_run_hangs(tmp_path_factory: pytest.TempPathFactory, observe: Observe) -> None:
    """A run of the model hangs for longer than `stuck_after`, with 5 other clients active"""
    with running(tmp_path_factory.mktemp("stuck"), "--stuck-after", "1", "--timeout", "2") as service:
        with HealthWatch(service) as health, BackgroundClients(service.url, tolerated=(504,)) as clients:
            hung = send_command(service, HOLD, 4.0)
            wait_ready(service)
            time.sleep(0.5)
        clients.assert_undisturbed()
        assert (hung.status_code, hung.json()["code"]) == (504, "deadline_exceeded")
        assert clients.statuses[504] >= 5
        assert health.live == health.ready == [200, 503, 200]
        assert service.idle().statuses() == by_status_text(clients.statuses + Counter({504: 1}))
    observe(
        f"504 at the deadline for the {1 + clients.statuses[504]} waiting requests; `/livez` and `/readyz` 503 while "
        "it hung; then answers as before"
    )


@pytest.mark.slow
def test_a_stop_while_the_worker_restarts(tmp_path_factory: pytest.TempPathFactory, observe: Observe) -> None:
    """SIGTERM while the worker is dead"""
    with running(tmp_path_factory.mktemp("stop")) as service:
        assert send_command(service, KILL).status_code == 503
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(TIMEOUT) == 0
        assert service.metrics().statuses() == {"503": 1}
    observe("a normal stop with status 0")


def test_commands_reach_the_backend_unchanged() -> None:
    """The tests above rely on this; it needs no server."""
    samples, _ = soundfile.read(io.BytesIO(command(HOLD, 4.0)), dtype="float32")
    np.testing.assert_array_equal(samples[:2], [HOLD, 4.0])
