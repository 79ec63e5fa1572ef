"""Hundreds of callers, cancellations, deadlines and faults at random moments: every accepted call ends."""

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
MURDERS = 4
COMMANDS = [0.5] * 60 + [FAIL, FAIL, OUT_OF_MEMORY, KILL, BREAK]
# Made beforehand: the storm is about timing, and work on the event loop would calm it down.
CLIPS = [make_clip(0.03 + 0.02 * i, command, seed=i) for i, command in enumerate(COMMANDS)]
EXPECTED = [answer(clip).logits for clip in CLIPS]
STORM_LIMITS = replace(LIMITS, max_requests=80, max_queue_clips=30, max_queue_seconds=20.0)


async def caller(engine: Engine, chance: random.Random) -> str:
    """One request, its end in a word; anything undocumented is raised."""
    loop = asyncio.get_running_loop()
    await asyncio.sleep(chance.uniform(0, SECONDS))
    index = chance.randrange(len(CLIPS))
    clip = CLIPS[index]
    patience = chance.choice([0.001, 0.01, 0.05, PATIENCE, PATIENCE])
    try:
        with engine.admit_request():
            await asyncio.sleep(chance.choice([0, 0, 0.01]))  # the upload
            deadline = loop.time() + patience
            output, timings = await engine.recognize(clip, deadline=deadline)
    except DeadlineExceeded:
        assert -0.002 < loop.time() - deadline < PATIENCE
        return "deadline"
    except (QueueFull, ModelLoading, WorkerDead, Draining, InferenceFailed) as error:
        return error.code if clip.samples[0] not in (FAIL, OUT_OF_MEMORY, BREAK) else f"{error.code} on command"
    np.testing.assert_array_equal(output.logits, EXPECTED[index])
    assert timings.queue >= 0
    return "answer"


async def survivor(engine: Engine) -> None:
    """A caller that comes back until it has its answer."""
    while True:
        try:
            with engine.admit_request():
                await engine.recognize(CLIPS[0], deadline=asyncio.get_running_loop().time() + PATIENCE)
                return
        except (QueueFull, ModelLoading, WorkerDead):
            await asyncio.sleep(0.01)


async def impatient(call: Coroutine[Any, Any, str], chance: random.Random) -> str:
    task = asyncio.ensure_future(call)
    if chance.random() < 0.25:
        await asyncio.sleep(chance.uniform(0, 1.2 * SECONDS))
        task.cancel()
    try:
        return await task
    except asyncio.CancelledError:
        return "cancelled"


async def storm(seed: int) -> Counter[str]:
    chance = random.Random(seed)
    control = FakeControl(limits=BatchLimits(clips=6, seconds=5.0))
    run_gate = control.run_gate

    async def jitter() -> None:
        """Runs that take a while, of changing length."""
        while True:
            run_gate.clear()
            await asyncio.sleep(chance.uniform(0, 0.01))
            run_gate.set()
            await asyncio.sleep(chance.uniform(0, 0.005))

    async def murder() -> None:
        for _ in range(MURDERS):
            await asyncio.sleep(chance.uniform(0, 1.5 * SECONDS / MURDERS))
            control.run_faults.append(SystemExit())

    engine, registry = new_engine(control, STORM_LIMITS)
    await engine.start()
    await engine.wait_ready()
    jittering, murdering = asyncio.create_task(jitter()), asyncio.create_task(murder())
    callers = [
        asyncio.create_task(impatient(caller(engine, chance_of_one), chance_of_one))
        for chance_of_one in (random.Random(chance.random()) for _ in range(CALLERS))
    ]
    await murdering
    await survivor(engine)
    draining = asyncio.create_task(engine.drain(PATIENCE))
    ends = Counter(await asyncio.gather(*callers))
    await draining
    jittering.cancel()
    control.release()

    health = engine.health()
    assert (health.state, health.worker_alive) == ("draining", False)
    assert (engine.state().queued_clips, engine.state().queued_seconds) == (0, 0.0)
    assert registry.get_sample_value("ser_requests_in_flight") == 0
    assert not worker_threads()
    assert control.closes == control.loads, "every backend was closed"
    assert (registry.get_sample_value("ser_worker_deaths_total") or 0) >= MURDERS
    return ends


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (2, 3))])
def test_every_accepted_call_ends(
    run: Callable[[Coroutine[Any, Any, Any]], Any], seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "STOP_GRACE", PATIENCE)
    logging.disable(logging.CRITICAL)  # hundreds of expected tracebacks
    began = time.monotonic()
    try:
        ends = run(asyncio.wait_for(storm(seed), 3 * PATIENCE))
    finally:
        logging.disable(logging.NOTSET)
    assert ends.total() == CALLERS
    assert time.monotonic() - began < 2 * PATIENCE
    assert ends["inference_failed"] == 0, "only clips that break the model fail"
    assert ends["cancelled"] > CALLERS / 20, "the storm was one"
