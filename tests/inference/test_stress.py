"""Hundreds of callers with cancellations, deadlines and faults at random times: every accepted call ends."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import uvloop

from service.errors import DeadlineExceeded, Draining, InferenceFailed, ModelLoading, QueueFull, WorkerDead
from service.inference import engine as engine_module
from service.inference.backend import BatchLimits
from service.inference.engine import Engine
from tests.inference.fake_backend import BREAK, FAIL, KILL, OUT_OF_MEMORY, FakeControl, answer, make_clip
from tests.inference.running import LIMITS, PATIENCE, new_engine, worker_threads

CALLERS = 400
SECONDS = 0.8
DEATHS = 4
FIRST_SAMPLES = [0.5] * 60 + [FAIL, FAIL, OUT_OF_MEMORY, KILL, BREAK]
# Made beforehand, since computing on the event loop would change the timing.
CLIPS = [make_clip(0.03 + 0.02 * i, first, seed=i) for i, first in enumerate(FIRST_SAMPLES)]
EXPECTED = [answer(clip).logits for clip in CLIPS]
STRESS_LIMITS = replace(LIMITS, max_requests=80, max_queue_clips=30, max_queue_seconds=20.0)


async def caller(engine: Engine, rng: random.Random) -> str:
    """One request; returns its outcome, and raises errors that are not documented."""
    loop = asyncio.get_running_loop()
    await asyncio.sleep(rng.uniform(0, SECONDS))
    index = rng.randrange(len(CLIPS))
    clip = CLIPS[index]
    seconds = rng.choice([0.001, 0.01, 0.05, PATIENCE, PATIENCE])
    try:
        with engine.admit_request("caller"):
            await asyncio.sleep(rng.choice([0, 0, 0.01]))  # the upload
            deadline = loop.time() + seconds
            output, timings = await engine.recognize(clip, deadline=deadline)
    except DeadlineExceeded:
        assert -0.002 < loop.time() - deadline < PATIENCE
        return "deadline"
    except (QueueFull, ModelLoading, WorkerDead, Draining, InferenceFailed) as error:
        return error.code if clip.samples[0] not in (FAIL, OUT_OF_MEMORY, BREAK) else f"{error.code} on request"
    np.testing.assert_array_equal(output.logits, EXPECTED[index])
    assert timings.queue >= 0
    return "answer"


async def persistent_caller(engine: Engine) -> None:
    """Retry until there is an answer."""
    while True:
        try:
            with engine.admit_request("caller"):
                await engine.recognize(CLIPS[0], deadline=asyncio.get_running_loop().time() + PATIENCE)
                return
        except (QueueFull, ModelLoading, WorkerDead):
            await asyncio.sleep(0.01)


async def cancelled_at_random(call: Coroutine[Any, Any, str], rng: random.Random) -> str:
    task = asyncio.ensure_future(call)
    if rng.random() < 0.25:
        await asyncio.sleep(rng.uniform(0, 1.2 * SECONDS))
        task.cancel()
    try:
        return await task
    except asyncio.CancelledError:
        return "cancelled"


async def stress(seed: int) -> Counter[str]:
    rng = random.Random(seed)
    control = FakeControl(limits=BatchLimits(clips=6, seconds=5.0))
    run_gate = control.run_gate

    async def vary_run_times() -> None:
        """Make runs take some time, of varying length."""
        while True:
            run_gate.clear()
            await asyncio.sleep(rng.uniform(0, 0.01))
            run_gate.set()
            await asyncio.sleep(rng.uniform(0, 0.005))

    async def end_workers() -> None:
        for _ in range(DEATHS):
            await asyncio.sleep(rng.uniform(0, 1.5 * SECONDS / DEATHS))
            control.run_faults.append(SystemExit())

    engine, registry = new_engine(control, STRESS_LIMITS)
    await engine.start()
    await engine.wait_ready()
    varying, ending = asyncio.create_task(vary_run_times()), asyncio.create_task(end_workers())
    callers = [
        asyncio.create_task(cancelled_at_random(caller(engine, own_rng), own_rng))
        for own_rng in (random.Random(rng.random()) for _ in range(CALLERS))
    ]
    await ending
    await persistent_caller(engine)
    draining = asyncio.create_task(engine.drain(PATIENCE))
    outcomes = Counter(await asyncio.gather(*callers))
    await draining
    varying.cancel()
    control.release()

    health = engine.health()
    assert (health.state, health.worker_alive) == ("draining", False)
    assert (engine.state().queued_clips, engine.state().queued_seconds) == (0, 0.0)
    assert registry.get_sample_value("ser_requests_in_flight") == 0
    assert not worker_threads()
    assert control.closes == control.loads, "every backend was closed"
    assert (registry.get_sample_value("ser_worker_deaths_total") or 0) >= DEATHS
    return outcomes


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (2, 3))])
def test_every_accepted_call_ends(
    run: Callable[[Coroutine[Any, Any, Any]], Any], seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "STOP_GRACE", PATIENCE)
    logging.disable(logging.CRITICAL)  # hundreds of expected tracebacks
    began = time.monotonic()
    try:
        outcomes = run(asyncio.wait_for(stress(seed), 3 * PATIENCE))
    finally:
        logging.disable(logging.NOTSET)
    assert outcomes.total() == CALLERS
    assert time.monotonic() - began < 2 * PATIENCE
    assert outcomes["inference_failed"] == 0, "only clips that break the model fail"
    assert outcomes["cancelled"] > CALLERS / 20, "enough calls were cancelled"
