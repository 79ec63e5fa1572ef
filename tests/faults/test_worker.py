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
from tests.faults.callers import Callers, ask
from tests.faults.conftest import Observe
from tests.faults.program import STICK, STICK_FOR_EVER
from tests.faults.service import PATIENCE, HealthWatch, Service, connect, running, texts, until
from tests.inference.fake_backend import BREAK, HOLD, KILL, OUT_OF_MEMORY

RELOADING = (503,)


def command(what: float, argument: float = 0.0) -> bytes:
    """A clip that tells the backend to misbehave."""
    samples = speech(seconds=0.5)
    samples[0, :2] = what, argument
    return encode("wav-f32", samples, 16_000)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("worker")) as started:
        yield started


def order(service: Service, what: float, argument: float = 0.0) -> httpx.Response:
    with connect(service.url) as client:
        return ask(client, command(what, argument))


def wait_ready(service: Service) -> float:
    """Seconds until it is ready again."""
    began = time.monotonic()
    until(lambda: service.health() == (200, 200))
    return time.monotonic() - began


def test_the_worker_thread_is_killed(service: Service, observe: Observe) -> None:
    """The worker thread is killed three times while 5 callers go on"""
    before, counted = service.saturate(), service.idle()
    restarts = []
    with HealthWatch(service) as health, Callers(service.url, tolerated=RELOADING) as callers:
        for _ in range(3):
            with service.loading_held_back():
                killed = order(service, KILL)
                assert (killed.status_code, killed.json()["code"]) == (503, "worker_dead")
                until(lambda: health.ready[-1] == 503)
            restarts.append(wait_ready(service))
            until(lambda: health.ready[-1] == 200)
            callers.get(10)
    callers.assert_content()
    after = service.idle()
    assert after["ser_worker_deaths_total"] - counted["ser_worker_deaths_total"] == 3
    assert health.live == [200]
    assert health.ready == [200, 503, 200, 503, 200, 503, 200]
    told = callers.statuses + Counter({503: 3})
    assert after.since(counted) == texts(told)
    held = service.back_to(before)
    assert held.within(before), (before, held)
    observe(
        f"{told.total()} requests: {told[200]} answers, all right, and {told[503]} times 503; loaded and ready again "
        f"in {max(restarts):.2f} s at most; `/livez` 200 throughout; {held} before and after"
    )


def test_the_backend_runs_out_of_memory(service: Service, observe: Observe) -> None:
    """The model runs out of memory on some clips while 5 callers go on"""
    counted = service.idle()
    with HealthWatch(service) as health, Callers(service.url) as callers:
        failed = [order(service, OUT_OF_MEMORY) for _ in range(3)]
    callers.assert_content()
    assert [(each.status_code, each.json()["code"]) for each in failed] == [(500, "inference_failed")] * 3
    after = service.idle()
    assert after["ser_worker_deaths_total"] == counted["ser_worker_deaths_total"]
    assert (health.live, health.ready) == ([200], [200])
    assert after.since(counted) == texts(callers.statuses + Counter({500: 3}))
    observe(f"3 times 500 for those clips; {callers.statuses[200]} answers to the others, all right; always ready")


@pytest.mark.parametrize(
    "what", [pytest.param(BREAK, marks=pytest.mark.slow, id="known"), pytest.param(STICK, id="unknown")]
)
def test_a_clip_breaks_the_backend(what: float, service: Service, observe: Observe) -> None:
    """A clip leaves the backend in an error that sticks, while 5 callers go on"""
    counted = service.idle()
    with HealthWatch(service) as health, Callers(service.url, tolerated=RELOADING) as callers:
        with ThreadPoolExecutor(1) as pool, service.loading_held_back():
            breaking = pool.submit(order, service, what)
            until(lambda: health.ready[-1] == 503)
        broke = breaking.result()
        wait_ready(service)
        until(lambda: health.ready[-1] == 200)
        callers.get(10)
    callers.assert_content()
    assert (broke.status_code, broke.json()["code"]) == (500, "inference_failed")
    after = service.idle()
    assert after["ser_worker_deaths_total"] - counted["ser_worker_deaths_total"] == 2
    assert after["ser_inference_failures_total"] - counted["ser_inference_failures_total"] == 1
    assert health.live == [200]
    assert health.ready[0] == 200
    assert after.since(counted) == texts(callers.statuses + Counter({500: 1}))
    # Who was accepted has an answer: what is refused meanwhile is refused before it waits.
    assert not callers.codes.keys() - {"model_loading", "worker_dead"}
    observe(
        f"the clip is tried on two backends, then 500; {callers.statuses[200]} answers to the others, all right, and "
        f"{callers.statuses[503]} times 503 while the model was loaded"
    )


@pytest.mark.slow
def test_an_error_lasts_as_long_as_the_process(tmp_path_factory: pytest.TempPathFactory, observe: Observe) -> None:
    """No backend can be loaded any more after a clip, as after some errors of CUDA"""
    with running(tmp_path_factory.mktemp("hopeless")) as service:
        with HealthWatch(service) as health:
            began = time.monotonic()
            response = order(service, STICK_FOR_EVER)
            assert (response.status_code, response.json()["code"]) == (503, "worker_dead")
            late = order(service, HOLD)
            assert late.status_code == 503
            status = service.process.wait(PATIENCE)
            took = time.monotonic() - began
        assert status == 1
        assert health.live == [200, 0]
        assert health.ready == [200, 503, 0]
        assert "could not be loaded again" in service.log.read_text()
        assert service.metrics().statuses() == {"503": 2}
    observe(f"503 at once, never ready again; after 6 failed loads ({took:.0f} s) the process ends with status 1")


@pytest.mark.slow
def test_a_run_hangs(tmp_path_factory: pytest.TempPathFactory, observe: Observe) -> None:
    """A run of the model hangs for longer than `stuck_after`, while 5 callers go on"""
    with running(tmp_path_factory.mktemp("stuck"), "--stuck-after", "1", "--timeout", "2") as service:
        with HealthWatch(service) as health, Callers(service.url, tolerated=(504,)) as callers:
            hung = order(service, HOLD, 4.0)
            wait_ready(service)
            time.sleep(0.5)
        callers.assert_content()
        assert (hung.status_code, hung.json()["code"]) == (504, "deadline_exceeded")
        assert callers.statuses[504] >= 5
        assert health.live == health.ready == [200, 503, 200]
        assert service.idle().statuses() == texts(callers.statuses + Counter({504: 1}))
    observe(
        f"504 at the deadline for the {1 + callers.statuses[504]} requests that waited; `/livez` and `/readyz` 503 as "
        "long as it hung; then answers as before"
    )


@pytest.mark.slow
def test_a_stop_while_the_worker_restarts(tmp_path_factory: pytest.TempPathFactory, observe: Observe) -> None:
    """SIGTERM in the very moment in which the worker is dead"""
    with running(tmp_path_factory.mktemp("stop")) as service:
        assert order(service, KILL).status_code == 503
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(PATIENCE) == 0
        assert service.metrics().statuses() == {"503": 1}
    observe("an orderly stop with status 0")


def test_commands_survive_the_way_to_the_model() -> None:
    """Without a server: what these tests rely on."""
    samples, _ = soundfile.read(io.BytesIO(command(HOLD, 4.0)), dtype="float32")
    np.testing.assert_array_equal(samples[:2], [HOLD, 4.0])
