"""Programs that are compiled and recorded for a GPU."""

from __future__ import annotations

import gc
import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.inference.backends.compile_options import CompileOptions
from service.model.manifest import Manifest
from service.results import ClipOutput

pytest.importorskip("torch")

import torch

from service.inference.backends.torch_backend import TorchBackend
from tests.inference.cuda.comparing import FEW, MARKS, MIXED, check
from tests.inference.cuda.running import large_encoder, run_program

pytestmark = MARKS


def test_every_program_is_a_cuda_graph(tiny: tuple[Path, Manifest]) -> None:
    from torch._dynamo.utils import counters

    counters.clear()
    backend = TorchBackend(*tiny, device="cuda", compile_options=FEW)
    backend.warm_up()
    assert [(shape.rows, shape.frames) for shape in backend._encoder.programs] == [
        (1, 102),
        (1, 262),
        (4, 102),
        (4, 262),
    ]
    assert counters["inductor"]["cudagraph_skips"] == 0
    # Only the waveforms and the frames are copied for a replay, not the weights.
    assert counters["inductor"]["cudagraph_recorded_non_static_inputs"] == 2 * 4
    compiled, recorded = counters["stats"]["unique_graphs"], counters["inductor"].copy()
    for number in range(20):
        backend.run(MIXED[number:])
    assert counters["stats"]["unique_graphs"] == compiled
    assert counters["inductor"] == recorded
    backend.close()


def test_all_default_programs_of_the_published_dimensions_fit() -> None:
    """With random weights; a program whose results differ from the encoder's would not be used."""
    from service.inference.backends.buckets import program_shapes
    from service.inference.backends.compiled_encoder import CompiledEncoder

    encoder, config = large_encoder(torch.float16)
    default = CompileOptions()
    shapes = program_shapes(config.num_extra_tokens, clips=default.clips, seconds=default.seconds)
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    programs = CompiledEncoder(encoder, config, shapes)
    programs.compile()
    assert list(programs.programs) == shapes
    assert torch.cuda.max_memory_reserved() < 8e9
    programs.close()


def test_answers_of_one_replay_survive_the_next(compiled: TorchBackend, expected: list[ClipOutput]) -> None:
    rng = np.random.default_rng(0)
    kept = []
    for _ in range(30):
        order = rng.permutation(len(MIXED))[: rng.integers(1, len(MIXED) + 1)]
        kept.append((order, compiled.run([MIXED[index] for index in order]).clips))
    for order, found in kept:
        check(found, [expected[index] for index in order], 1e-2)


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
        backend = TorchBackend(*tiny, device="cuda", compile_options=FEW)
        backend.warm_up()
        programs = len(backend._encoder.programs)
        found = backend.run(MIXED).clips
        backend.close()
        return found, programs

    for _ in range(2):
        found, programs = in_thread(life)
        assert programs == 4
        check(found, expected, 1e-2)


PROGRAM = """
import json, sys, time
from pathlib import Path
from service.inference.backends.compile_options import CompileOptions
from service.inference.backends.select import open_backend
from service.model.store import find

stored = find("tiny", cache=Path("/nonexistent"), offline=True)
compile_options = CompileOptions(clips=4, seconds=5.0, cache=Path(sys.argv[1]))
backend = open_backend(stored.directory, stored.manifest, device="cuda", compile_options=compile_options)
began = time.monotonic()
backend.warm_up()
seconds = time.monotonic() - began
from torch._dynamo.utils import counters
print(json.dumps({"seconds": seconds, **counters["aot_autograd"], **counters["inductor"]}))
"""


def test_a_restart_compiles_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
        monkeypatch.delenv(variable, raising=False)
    first, second = (json.loads(run_program(PROGRAM, str(tmp_path / "cache"))) for _ in range(2))
    assert first["fxgraph_cache_miss"] == second["autograd_cache_hit"] == 4
    assert "fxgraph_cache_miss" not in second
    assert second["seconds"] < first["seconds"]
