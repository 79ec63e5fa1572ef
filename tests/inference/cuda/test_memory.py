"""Memory of a GPU, and clips that do not fit."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest

from service.model.manifest import Manifest
from service.model.synthetic_speech import speech_like
from service.results import Clip, ClipOutput

pytest.importorskip("torch")

import torch

from service.inference.backends.torch_backend import TorchBackend
from tests.inference.cuda.comparing import FEW, MARKS, MIXED, check
from tests.inference.cuda.running import large_encoder

pytestmark = MARKS


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_five_minutes_fit_into_three_gigabytes(dtype: torch.dtype) -> None:
    encoder, config = large_encoder(dtype)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    waveforms = torch.randn(1, 300 * 16_000, device="cuda").to(dtype)
    with torch.no_grad():
        found = encoder.encode(waveforms)
    assert found.logits.shape[1] == config.frames(300 * 16_000)
    assert bool(found.logits.isfinite().all())
    assert torch.cuda.max_memory_allocated() < (3e9 if dtype == torch.float16 else 5e9)


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


def test_the_memory_of_a_backend_is_given_back(tiny: tuple[Path, Manifest]) -> None:
    gc.collect()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    backend = TorchBackend(*tiny, device="cuda", compile_options=FEW)
    backend.warm_up()
    used = backend.memory()
    assert before < used["allocated"] <= used["reserved"]
    assert used["peak"] >= used["allocated"]
    assert used["total"] > used["reserved"]
    backend.close()
    del backend
    gc.collect()
    # The filters of resampling stay, some megabytes for each rate.
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
