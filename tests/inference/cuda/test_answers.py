"""Answers of a GPU equal those of the CPU, in every precision, alone, in batches and through the engine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from service.inference import engine as engine_module
from service.inference.backends.compile_options import CompileOptions
from service.inference.engine import Engine
from service.model.manifest import WEIGHTS, Manifest
from service.model.synthetic_speech import speech_like
from service.observability.metrics import Metrics
from service.observability.telemetry import Telemetry
from service.results import Clip, ClipOutput
from tests.inference.running import LIMITS
from tests.inference.small_model import prepare_small

pytest.importorskip("torch")

import torch

from service.inference.backends.precision import Dtype, load_encoder
from service.inference.backends.torch_backend import CUDA_LIMITS, TorchBackend
from tests.inference.cuda.comparing import FEW, MARKS, MIXED, OFF, check

pytestmark = MARKS


@pytest.mark.parametrize("compile_options", [OFF, FEW], ids=["as it is", "compiled"])
@pytest.mark.parametrize("dtype", ["auto", "fp16", "bf16", "fp32"])
def test_answers_are_those_of_the_cpu(
    tiny: tuple[Path, Manifest], expected: list[ClipOutput], dtype: Dtype, compile_options: CompileOptions
) -> None:
    backend = TorchBackend(*tiny, device="cuda", dtype=dtype, compile_options=compile_options)
    backend.warm_up()
    tolerance = {"fp32": 1e-4, "bf16": 3e-2}.get(dtype, 1e-2)
    check(backend.run(MIXED).clips, expected, tolerance)
    check([backend.run([clip]).clips[0] for clip in MIXED], expected, tolerance)
    backend.close()


def test_fp16_that_overflows_is_replaced_by_bf16(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from safetensors.torch import load_file, save_file

    directory, manifest = prepare_small(tmp_path)
    weights = load_file(directory / WEIGHTS)
    for name, factor in (("fc1.weight", 1e5), ("fc1.bias", 1e5), ("fc2.weight", 1e-5)):
        weights[f"blocks.1.mlp.{name}"] *= factor
    weights["proj.weight"] /= 16  # so that the scores in BF16 are accurate enough
    save_file(weights, tmp_path / WEIGHTS)
    assert load_encoder(tmp_path / WEIGHTS, manifest, torch.device("cuda", 0), "auto")[1] == "bf16"
    assert "fp16 changes the scores of small by nan" in caplog.text


async def test_the_engine_serves_from_the_gpu(
    tiny: tuple[Path, Manifest], expected: list[ClipOutput], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "STOP_GRACE", 30.0)
    telemetry = Telemetry(Metrics(CollectorRegistry()))
    engine = Engine(lambda: TorchBackend(*tiny, device="cuda", compile_options=FEW), LIMITS, telemetry)
    await engine.start()
    await engine.wait_ready()
    deadline = asyncio.get_running_loop().time() + 60.0

    async def ask(clip: Clip) -> ClipOutput:
        with engine.admit_request("caller"):
            return (await engine.recognize(clip, deadline=deadline))[0]

    found = await asyncio.gather(*map(ask, MIXED))
    await engine.drain(10.0)
    check(found, expected, 1e-2)


def test_copies_are_pinned_and_few(compiled: TorchBackend) -> None:
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    clips = [Clip(speech_like(1.5, seed), 16_000) for seed in range(4)]
    compiled.run(clips)
    with torch.profiler.profile(activities=activities) as profile:
        compiled.run(clips)
    counts = {event.key: event.count for event in profile.key_averages()}
    assert counts["cudaGraphLaunch"] == 1
    assert not [name for name in counts if "Pageable" in name]
    assert sum(count for name, count in counts.items() if name.startswith("Memcpy DtoH")) == 2
    assert sum(count for name, count in counts.items() if name.startswith("Memcpy HtoD")) == 3


def test_the_largest_batch_is_faster_than_its_clips_one_by_one(compiled: TorchBackend) -> None:
    clips = [Clip(speech_like(CUDA_LIMITS.seconds / CUDA_LIMITS.clips), 16_000)] * CUDA_LIMITS.clips

    def seconds(batches: Sequence[Sequence[Clip]]) -> float:
        began = time.perf_counter()
        for batch in batches:
            compiled.run(batch)
        return time.perf_counter() - began

    seconds([clips])
    assert seconds([clips]) < seconds([[clip] for clip in clips])
