"""What only a GPU can show. Everything else about the torch backend is tested on the CPU."""

from __future__ import annotations

import asyncio
import gc
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from prometheus_client import CollectorRegistry

from service.errors import BackendBroken
from service.inference.backends.compilation import Compilation
from service.inference.engine import Engine
from service.inference.limits import EngineLimits
from service.metrics import Metrics
from service.model.config import ModelConfig
from service.model.manifest import WEIGHTS, Manifest
from service.model.probe import speech_like
from service.model.store import find
from service.model.weights import expected_shapes
from service.results import Clip, ClipOutput, Floats
from tests.checkpoints import real_clips
from tests.inference.small_model import CLIPS, prepare_small

pytest.importorskip("torch")

import torch

from service.inference.backends.precision import Dtype, load_encoder
from service.inference.backends.torch import CUDA_LIMITS, TorchBackend
from service.inference.encoder import Encoder

pytestmark = [
    pytest.mark.torch,
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
    # Warnings inside torch's compiler depend on the GPU and are no business of ours.
    pytest.mark.filterwarnings("default"),
]

LARGE = Path(__file__).parents[2] / "loadtests" / "data" / "config.yaml"
FEW = Compilation(clips=4, seconds=5.0)
OFF = Compilation(choice="off")
MIXED = [
    *CLIPS,
    *(Clip(samples, 16_000) for samples in real_clips()),
    *(Clip(speech_like(0.3 + 0.37 * index, index), 16_000, frame_embeddings=index % 4 == 0) for index in range(16)),
    Clip(speech_like(12.0, 3), 48_000),
]
"""Clips that take programs and clips that take none, in many groups."""


@pytest.fixture(scope="module")
def tiny() -> tuple[Path, Manifest]:
    """The embedded model: trained, so that its scores do not make much of the smallest differences."""
    stored = find("tiny", cache=Path("/nonexistent"), offline=True)
    return stored.directory, stored.manifest


@pytest.fixture(scope="module")
def expected(tiny: tuple[Path, Manifest]) -> list[ClipOutput]:
    """The CPU's answers to `MIXED`, clip by clip."""
    return list(TorchBackend(*tiny).run(MIXED).clips)


@pytest.fixture
def compiled(tiny: tuple[Path, Manifest]) -> Iterator[TorchBackend]:
    """The service on a GPU as it is by default, with fewer programs; there may be no other at the same time."""
    backend = TorchBackend(*tiny, device="cuda", compilation=FEW)
    backend.warm_up()
    yield backend
    backend.close()


def scores(logits: Floats) -> Floats:
    return np.asarray(torch.from_numpy(logits).mean(dim=0).softmax(dim=0))


def check(found: Sequence[ClipOutput], expected: Sequence[ClipOutput], tolerance: float) -> None:
    for one, other in zip(found, expected, strict=True):
        assert (one.speech is None) == (other.speech is None)
        # Speech may begin or end one hop of 8 ms apart, where the threshold meets rounding.
        assert one.scored.start == pytest.approx(other.scored.start, abs=0.0081)
        assert one.scored.end == pytest.approx(other.scored.end, abs=0.0081)
        difference = np.abs(scores(one.logits) - scores(other.logits)).max()
        assert difference <= tolerance
        ordered = np.sort(scores(other.logits))
        assert scores(one.logits).argmax() == scores(other.logits).argmax() or ordered[-1] - ordered[-2] < tolerance
        cosine = one.embedding @ other.embedding / np.linalg.norm(one.embedding) / np.linalg.norm(other.embedding)
        assert cosine > 1 - tolerance
        assert (one.frame_embeddings is None) == (other.frame_embeddings is None)
        if one.frame_embeddings is not None:
            assert one.frame_embeddings.shape[0] == one.logits.shape[0]
            np.testing.assert_allclose(one.frame_embeddings.mean(axis=0), one.embedding, atol=0.05, rtol=0)


@pytest.mark.parametrize("compilation", [OFF, FEW], ids=["as it is", "compiled"])
@pytest.mark.parametrize("dtype", ["auto", "fp16", "bf16", "fp32"])
def test_answers_are_those_of_the_cpu(
    tiny: tuple[Path, Manifest], expected: list[ClipOutput], dtype: Dtype, compilation: Compilation
) -> None:
    backend = TorchBackend(*tiny, device="cuda", dtype=dtype, compilation=compilation)
    backend.warm_up()
    tolerance = {"fp32": 1e-4, "bf16": 3e-2}.get(dtype, 1e-2)
    check(backend.run(MIXED).clips, expected, tolerance)
    check([backend.run([clip]).clips[0] for clip in MIXED], expected, tolerance)
    backend.close()


def test_every_program_is_a_cuda_graph(tiny: tuple[Path, Manifest]) -> None:
    from torch._dynamo.utils import counters

    counters.clear()
    backend = TorchBackend(*tiny, device="cuda", compilation=FEW)
    backend.warm_up()
    assert [(shape.rows, shape.frames) for shape in backend._encoder.programs] == [
        (1, 102),
        (1, 262),
        (4, 102),
        (4, 262),
    ]
    assert counters["inductor"]["cudagraph_skips"] == 0
    # Only the waveforms and the frames are copied for a replay; the weights are where they were.
    assert counters["inductor"]["cudagraph_recorded_non_static_inputs"] == 2 * 4
    compiled, recorded = counters["stats"]["unique_graphs"], counters["inductor"].copy()
    for number in range(20):
        backend.run(MIXED[number:])
    assert counters["stats"]["unique_graphs"] == compiled
    assert counters["inductor"] == recorded
    backend.close()


def test_all_default_programs_of_the_published_dimensions_fit() -> None:
    """Random weights of the real dimensions: each program must answer as the encoder, or it would be left out."""
    from service.inference.backends.buckets import program_shapes
    from service.inference.backends.compiled import CompiledEncoder

    encoder, config = large_encoder(torch.float16)
    default = Compilation()
    shapes = program_shapes(config.num_extra_tokens, clips=default.clips, seconds=default.seconds)
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    programs = CompiledEncoder(encoder, config, shapes)
    programs.compile()
    assert list(programs.programs) == shapes
    assert torch.cuda.max_memory_reserved() < 8e9
    programs.close()


def large_encoder(dtype: torch.dtype) -> tuple[Encoder, ModelConfig]:
    config = ModelConfig.from_hub(yaml.safe_load(LARGE.read_text(encoding="utf-8"))["model_conf"])
    generator = torch.Generator("cuda").manual_seed(0)
    weights = {}
    for name, shape in expected_shapes(config, 9).items():
        values = torch.randn(shape, generator=generator, device="cuda")
        fan_in = values[0].numel() if values.dim() > 1 else 100
        weights[name] = values / fan_in**0.5 + (1.0 if name.endswith((".weight", "scale")) and values.dim() < 2 else 0)
    return Encoder.from_weights(config, weights, device=torch.device("cuda", 0), dtype=dtype), config


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_five_minutes_fit_into_three_gigabytes(dtype: torch.dtype) -> None:
    encoder, config = large_encoder(dtype)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    waveforms = torch.randn(1, 300 * 16_000, device="cuda").to(dtype)
    with torch.no_grad():
        found = encoder.answer(waveforms)
    assert found.logits.shape[1] == config.frames(300 * 16_000)
    assert bool(found.logits.isfinite().all())
    assert torch.cuda.max_memory_allocated() < (3e9 if dtype == torch.float16 else 5e9)


def test_answers_of_one_replay_survive_the_next(compiled: TorchBackend, expected: list[ClipOutput]) -> None:
    rng = np.random.default_rng(0)
    kept = []
    for _ in range(30):
        order = rng.permutation(len(MIXED))[: rng.integers(1, len(MIXED) + 1)]
        kept.append((order, compiled.run([MIXED[index] for index in order]).clips))
    for order, found in kept:
        check(found, [expected[index] for index in order], 1e-2)


def test_memory_after_a_thousand_requests_is_that_after_ten(compiled: TorchBackend) -> None:
    rng = np.random.default_rng(1)

    def used_after(runs: int) -> dict[str, int]:
        for _ in range(runs):
            order = rng.permutation(len(MIXED))[: rng.integers(1, 9)]
            compiled.run([MIXED[index] for index in order])
        gc.collect()
        return compiled.memory()

    compiled.run(MIXED)  # the largest of these batches
    ten, thousand = used_after(10), used_after(990)
    assert thousand["allocated"] == ten["allocated"]
    assert thousand["reserved"] <= 1.25 * ten["reserved"]


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


def test_the_memory_of_a_backend_is_given_back(tiny: tuple[Path, Manifest]) -> None:
    gc.collect()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    backend = TorchBackend(*tiny, device="cuda", compilation=FEW)
    backend.warm_up()
    used = backend.memory()
    assert before < used["allocated"] <= used["reserved"]
    assert used["peak"] >= used["allocated"]
    assert used["total"] > used["reserved"]
    backend.close()
    del backend
    gc.collect()
    # What stays is the filters of resampling, some megabytes for each rate.
    assert torch.cuda.memory_allocated() < before + 2e7


def test_a_batch_that_does_not_fit_harms_no_other(compiled: TorchBackend, expected: list[ClipOutput]) -> None:
    torch.cuda.empty_cache()
    total = torch.cuda.mem_get_info()[1]
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 5e7) / total)
    try:
        with pytest.raises(MemoryError, match="1 clips do not fit"):
            compiled.run([Clip(np.resize(speech_like(10.0), 1200 * 16_000), 16_000, trim=False)])
        check(compiled.run(MIXED[:3]).clips, expected[:3], 1e-2)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def test_fp16_that_overflows_is_replaced_by_bf16(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from safetensors.torch import load_file, save_file

    directory, manifest = prepare_small(tmp_path)
    weights = load_file(directory / WEIGHTS)
    for name, factor in (("fc1.weight", 1e5), ("fc1.bias", 1e5), ("fc2.weight", 1e-5)):
        weights[f"blocks.1.mlp.{name}"] *= factor
    save_file(weights, tmp_path / WEIGHTS)
    assert load_encoder(tmp_path / WEIGHTS, manifest, torch.device("cuda", 0), "auto")[1] == "bf16"
    assert "fp16 changes the scores of small by nan" in caplog.text


def in_thread(work: Callable[[], Any]) -> Any:
    answer: list[Any] = []
    thread = threading.Thread(target=lambda: answer.append(work()))
    thread.start()
    thread.join()
    return answer[0]


def test_a_worker_that_is_restarted_compiles_in_another_thread(
    tiny: tuple[Path, Manifest], expected: list[ClipOutput]
) -> None:
    def life() -> tuple[Sequence[ClipOutput], int]:
        backend = TorchBackend(*tiny, device="cuda", compilation=FEW)
        backend.warm_up()
        programs = len(backend._encoder.programs)
        found = backend.run(MIXED).clips
        backend.close()
        return found, programs

    for _ in range(2):
        found, programs = in_thread(life)
        assert programs == 4
        check(found, expected, 1e-2)


async def test_the_engine_serves_from_the_gpu(tiny: tuple[Path, Manifest], expected: list[ClipOutput]) -> None:
    limits = EngineLimits(stop_grace=30.0)
    engine = Engine(lambda: TorchBackend(*tiny, device="cuda", compilation=FEW), limits, Metrics(CollectorRegistry()))
    await engine.start()
    await engine.wait_ready()
    deadline = asyncio.get_running_loop().time() + 60.0

    async def ask(clip: Clip) -> ClipOutput:
        with engine.admit():
            return (await engine.recognize(clip, deadline=deadline))[0]

    found = await asyncio.gather(*map(ask, MIXED))
    await engine.drain(10.0)
    check(found, expected, 1e-2)


PROGRAM = """
import json, sys, time
from pathlib import Path
from service.inference.backends.compilation import Compilation
from service.inference.backends.select import open_backend
from service.model.store import find

stored = find("tiny", cache=Path("/nonexistent"), offline=True)
compilation = Compilation(clips=4, seconds=5.0, cache=Path(sys.argv[1]))
backend = open_backend(stored.directory, stored.manifest, device="cuda", compilation=compilation)
began = time.monotonic()
backend.warm_up()
seconds = time.monotonic() - began
from torch._dynamo.utils import counters
print(json.dumps({"seconds": seconds, **counters["aot_autograd"], **counters["inductor"]}))
"""

STICKY = """
import sys
from pathlib import Path
import torch
from service.errors import BackendBroken
from service.inference.backends.torch import TorchBackend
from service.model.probe import speech_like
from service.model.store import find
from service.results import Clip

stored = find("tiny", cache=Path("/nonexistent"), offline=True)
backend = TorchBackend(stored.directory, stored.manifest, device="cuda")
clips = [Clip(speech_like(1.0), 16_000)]
backend.run(clips)
sound = backend._encoder.answer

def crash(waveforms, frames=None):
    # Out of range: an assertion in the kernel fails, and the context is lost.
    torch.zeros(1, device="cuda")[torch.tensor([7], device="cuda")]
    return sound(waveforms, frames)

backend._encoder.answer = crash
for _ in range(2):
    try:
        backend.run(clips)
    except BackendBroken:
        print("broken")
backend._encoder.answer = sound
try:
    backend.run(clips)
except BackendBroken:
    print("broken for good")
try:
    TorchBackend(stored.directory, stored.manifest, device="cuda")
except Exception:
    print("no other either")
sys.stdout.flush()
import os
os._exit(0)
"""


def run_program(program: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_restart_compiles_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
        monkeypatch.delenv(variable, raising=False)
    first, second = (json.loads(run_program(PROGRAM, str(tmp_path / "cache"))) for _ in range(2))
    assert first["fxgraph_cache_miss"] == second["autograd_cache_hit"] == 4
    assert "fxgraph_cache_miss" not in second
    assert second["seconds"] < first["seconds"]


def test_an_error_that_sticks_breaks_the_backend_and_the_process() -> None:
    """What the process cannot do any more, another one can: this one, for instance."""
    assert run_program(STICKY).splitlines() == [
        "broken",
        "broken",
        "broken for good",
        "no other either",
    ]
    assert torch.zeros(1, device="cuda").item() == 0


def test_an_error_that_passes_concerns_its_batch_alone(
    compiled: TorchBackend, expected: list[ClipOutput], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> object:
        torch.randn(2, 3, device="cuda") @ torch.randn(2, 3, device="cuda")
        return None

    with monkeypatch.context() as patch:
        patch.setattr(compiled._encoder, "answer", refuse)
        with pytest.raises(RuntimeError) as caught:
            compiled.run(MIXED[:2])
        assert not isinstance(caught.value, BackendBroken)
    check(compiled.run(MIXED[:2]).clips, expected[:2], 1e-2)


def test_the_largest_batch_is_faster_than_its_clips_one_by_one(compiled: TorchBackend) -> None:
    clips = [Clip(speech_like(CUDA_LIMITS.seconds / CUDA_LIMITS.clips), 16_000)] * CUDA_LIMITS.clips

    def seconds(batches: Sequence[Sequence[Clip]]) -> float:
        began = time.perf_counter()
        for batch in batches:
            compiled.run(batch)
        return time.perf_counter() - began

    seconds([clips])
    assert seconds([clips]) < seconds([[clip] for clip in clips])
