from __future__ import annotations

import gc
import json
import logging
import os
import subprocess
import sys
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from service.errors import SettingsInvalid
from service.inference.backends.compile_options import CompileOptions
from service.model.manifest import Manifest
from service.model.synthetic_speech import speech_like
from service.results import BatchOutput, Clip
from tests.inference.small_model import CLIPS, CONFIG, assert_same_answers, prepare_small, weights
from tests.rounding import logit_tolerance, mean_tolerance

pytest.importorskip("torch")
pytestmark = pytest.mark.torch

import torch  # noqa: E402
from torch import Tensor  # noqa: E402

from service.inference.backends import buckets  # noqa: E402
from service.inference.backends.buckets import BatchShape  # noqa: E402
from service.inference.backends.torch_backend import TorchBackend  # noqa: E402
from service.model.network.encoder import Encoded  # noqa: E402

SMALL = CompileOptions(choice="on", clips=4, seconds=2.0)
PROGRAMS = [BatchShape(1, 102), BatchShape(4, 102)]
SHORT = [Clip(speech_like(0.3 + 0.12 * index, index), 16_000, frame_embeddings=index % 3 == 0) for index in range(11)]
"""Clips that are short enough for the programs."""


@pytest.fixture(autouse=True)
def _small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buckets, "ROWS", (1, 2, 3, 4))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    return prepare_small(tmp_path_factory.mktemp("compiled"))


@pytest.fixture(scope="module")
def reference(prepared: tuple[Path, Manifest]) -> TorchBackend:
    """Runs clips one by one, uncompiled and without padding."""
    return TorchBackend(*prepared)


def check(run: BatchOutput, clips: Sequence[Clip], reference: TorchBackend) -> None:
    """The answers must be those of the clips alone, in the same order."""
    assert_same_answers(run.clips, [reference.run([clip]).clips[0] for clip in clips])


class Graphs:
    """A double of programs recorded as CUDA graphs: a call of one overwrites all earlier outputs."""

    def __init__(self, function: Callable[[Tensor, Tensor], Encoded]) -> None:
        self.calls: list[BatchShape] = []
        self.steps = 0
        self._function = function
        self._answered: list[Tensor] = []

    def __call__(self, waveforms: Tensor, frames: Tensor) -> Encoded:
        self.calls.append(BatchShape(waveforms.shape[0], (waveforms.shape[1] - 80) // 320))
        assert self.steps == len(self.calls), "a step must begin before each replay"
        for values in self._answered:
            values.fill_(float("nan"))
        found = self._function(waveforms, frames)
        self._answered = list(found)
        return found


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[Graphs]:
    """The doubles of all programs compiled during the test."""
    made: list[Graphs] = []

    def compiled(function: Callable[[Tensor, Tensor], Encoded], **options: Any) -> Graphs:
        made.append(Graphs(function))
        return made[-1]

    def begin_step() -> None:
        made[-1].steps += 1

    monkeypatch.setattr(torch, "compile", compiled)
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", begin_step)
    return made


def test_programs_are_recorded_and_replayed_before_ready_largest_first(
    prepared: tuple[Path, Manifest], graphs: list[Graphs], caplog: pytest.LogCaptureFixture
) -> None:
    backend = TorchBackend(*prepared, compile_options=SMALL)
    backend.run(SHORT)
    assert not graphs, "only the warm-up compiles"
    with caplog.at_level(logging.INFO):
        backend.warm_up()
    assert graphs[0].calls[:6] == [PROGRAMS[1]] * 3 + [PROGRAMS[0]] * 3
    assert list(backend._encoder.programs) == PROGRAMS
    assert "program 1 of 2, 4 x 2.04 s" in caplog.text
    assert "2 programs are ready" in caplog.text


def test_answers_of_one_replay_survive_the_next(
    prepared: tuple[Path, Manifest], graphs: list[Graphs], reference: TorchBackend
) -> None:
    backend = TorchBackend(*prepared, compile_options=SMALL)
    backend.warm_up()
    before = len(graphs[0].calls)
    run = backend.run(SHORT)
    assert len(graphs[0].calls) - before >= 3
    earlier = backend.run(CLIPS)
    check(run, SHORT, reference)
    check(earlier, CLIPS, reference)


def test_shapes_without_a_program_run_uncompiled(
    prepared: tuple[Path, Manifest], graphs: list[Graphs], reference: TorchBackend
) -> None:
    backend = TorchBackend(*prepared, compile_options=SMALL)
    backend.warm_up()
    before = len(graphs[0].calls)
    clips = [Clip(speech_like(seconds, 1), 16_000) for seconds in (2.5, 4.0)]
    check(backend.run(clips), clips, reference)
    assert len(graphs[0].calls) == before


def test_a_program_with_other_results_is_not_used(
    prepared: tuple[Path, Manifest],
    graphs: list[Graphs],
    reference: TorchBackend,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def wrong(self: Graphs, waveforms: Tensor, frames: Tensor) -> Encoded:
        found = original(self, waveforms, frames)
        # Like a replay that reads old inputs.
        return found if waveforms.shape[0] == 1 or len(self.calls) < 3 else Encoded(*(v.flip(1) for v in found))

    original = Graphs.__call__
    monkeypatch.setattr(Graphs, "__call__", wrong)
    backend = TorchBackend(*prepared, compile_options=SMALL)
    backend.warm_up()
    assert list(backend._encoder.programs) == PROGRAMS[:1]
    assert "the program for 4 x 2.04 s differs by" in caplog.text
    check(backend.run(SHORT), SHORT, reference)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_program_whose_result_is_not_finite_is_not_used(
    prepared: tuple[Path, Manifest], graphs: list[Graphs], monkeypatch: pytest.MonkeyPatch, bad: float
) -> None:
    original = Graphs.__call__
    monkeypatch.setattr(Graphs, "__call__", lambda *args: Encoded(*(v + bad for v in original(*args))))
    backend = TorchBackend(*prepared, compile_options=SMALL)
    backend.warm_up()
    assert not backend._encoder.programs


@pytest.fixture
def no_compiler(graphs: list[Graphs], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Graphs, waveforms: Tensor, frames: Tensor) -> Encoded:
        if waveforms.shape[0] == 1:
            raise RuntimeError("Failed to find C compiler")
        return self._function(waveforms, frames)

    monkeypatch.setattr(Graphs, "__call__", fail)


@pytest.mark.usefixtures("no_compiler")
def test_without_a_compiler_auto_runs_uncompiled_and_logs_a_warning(
    prepared: tuple[Path, Manifest],
    reference: TorchBackend,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    # As on CUDA, where `auto` compiles.
    monkeypatch.setattr(CompileOptions, "wanted", lambda self, device: self.choice == "auto")
    backend = TorchBackend(*prepared, compile_options=CompileOptions(clips=4, seconds=2.0))
    backend.warm_up()
    assert not backend._encoder.programs
    assert "small runs without compiled programs: no program for 1 x 2.04 s" in caplog.text
    assert "Failed to find C compiler" in caplog.text
    check(backend.run(SHORT), SHORT, reference)


@pytest.mark.usefixtures("no_compiler")
def test_without_a_compiler_compile_on_is_an_error(prepared: tuple[Path, Manifest]) -> None:
    backend = TorchBackend(*prepared, compile_options=SMALL)
    with pytest.raises(SettingsInvalid, match="compile=off"):
        backend.warm_up()


@pytest.mark.parametrize("choice", ["auto", "off"])
def test_the_cpu_compiles_only_when_asked_to(
    prepared: tuple[Path, Manifest], graphs: list[Graphs], choice: Any
) -> None:
    backend = TorchBackend(*prepared, compile_options=CompileOptions(choice=choice))
    backend.warm_up()
    assert not graphs
    assert backend.run(SHORT).padding_ratio == 0


def test_runs_leave_no_tensors(prepared: tuple[Path, Manifest], graphs: list[Graphs]) -> None:
    backend = TorchBackend(*prepared, compile_options=SMALL)
    backend.warm_up()

    def tensors_after(runs: int) -> int:
        for number in range(runs):
            backend.run(SHORT[number % 5 :])
        gc.collect()
        return sum(issubclass(type(thing), Tensor) for thing in gc.get_objects())

    assert tensors_after(5) == tensors_after(20)


def test_closing_releases_the_weights(prepared: tuple[Path, Manifest], graphs: list[Graphs]) -> None:
    backend = TorchBackend(*prepared, compile_options=SMALL)
    backend.warm_up()
    weights = weakref.ref(backend._encoder._encoder)
    graphs.clear()
    backend.close()
    gc.collect()
    assert weights() is None


@pytest.mark.slow
class TestTorch:
    """With torch's own tracing and guards, but a backend that compiles nothing."""

    @pytest.fixture
    def traced(self, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
        """The traced graphs, each with the number of its `calls`."""
        found: list[Any] = []

        def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
            def call(*args: Any) -> Any:
                traced.calls += 1
                return graph.forward(*args)

            traced = SimpleNamespace(calls=0)
            found.append(traced)
            return call

        compile_with = torch.compile

        def compiled(function: Callable[[Tensor, Tensor], Encoded], **options: Any) -> Any:
            return compile_with(function, backend=backend, fullgraph=True, dynamic=False)

        monkeypatch.setattr(torch, "compile", compiled)
        return found

    def test_each_shape_is_compiled_once_and_none_while_serving(
        self, prepared: tuple[Path, Manifest], traced: list[Any], reference: TorchBackend
    ) -> None:
        backend = TorchBackend(*prepared, compile_options=SMALL)
        backend.warm_up()
        assert len(traced) == len(PROGRAMS)
        clips = [*SHORT, *CLIPS]
        before = [graph.calls for graph in traced]
        check(backend.run(clips), clips, reference)
        check(backend.run(clips[:1]), clips[:1], reference)
        assert all(graph.calls > calls for graph, calls in zip(traced, before, strict=True))
        before = [graph.calls for graph in traced]
        # A guarded value has changed, so torch would compile again if it were not told to run the encoder instead.
        torch.set_num_threads(torch.get_num_threads() + 1)
        try:
            check(backend.run(clips), clips, reference)
        finally:
            torch.set_num_threads(torch.get_num_threads() - 1)
        assert [graph.calls for graph in traced] == before
        assert len(traced) == len(PROGRAMS)
        backend.close()

    def test_more_programs_than_torch_keeps_by_default(
        self, prepared: tuple[Path, Manifest], traced: list[Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shapes = [BatchShape(1, frames) for frames in range(6, 6 + 16 * 9, 16)]
        monkeypatch.setattr("service.inference.backends.torch_backend.program_shapes", lambda *args, **limits: shapes)
        backend = TorchBackend(*prepared, compile_options=SMALL)
        backend.warm_up()
        assert list(backend._encoder.programs) == shapes
        assert len(traced) == 9 > torch._dynamo.config.recompile_limit
        backend.close()


PROGRAM = """
import json, sys, threading
from pathlib import Path
from service.inference.backends.compile_options import CompileOptions
from service.inference.backends.select import open_backend
from service.model.manifest import Manifest
from tests.inference.small_model import CLIPS

def work():
    directory = Path(sys.argv[1])
    compile_options = CompileOptions("on", clips=4, seconds=2.0, cache=Path(sys.argv[2]))
    manifest = Manifest.read(directory)
    backend = open_backend(directory, manifest, backend="torch", device="cpu", compile_options=compile_options)
    backend.warm_up()
    logits = [clip.logits.mean(axis=0).tolist() for each in CLIPS for clip in backend.run([each]).clips]
    from torch._dynamo.utils import counters
    found = {**counters["aot_autograd"], **counters["inductor"]}
    print(json.dumps({"logits": logits, "counters": found, "programs": len(backend._encoder.programs)}))
    backend.close()

# Not in the main thread, as in the service.
thread = threading.Thread(target=work)
thread.start()
thread.join()
"""


@pytest.mark.slow
def test_programs_outlive_the_process(prepared: tuple[Path, Manifest], reference: TorchBackend, tmp_path: Path) -> None:
    """The real compiler on the CPU: equal answers, and the second process compiles nothing."""
    environment = {name: value for name, value in os.environ.items() if "CACHE_DIR" not in name}
    answers = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(prepared[0]), str(tmp_path / "cache")],
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
            env=environment,
        )
        assert done.returncode == 0, done.stderr
        answers.append(json.loads(done.stdout))
    clips = reference.run(CLIPS).clips
    expected = [clip.logits.mean(axis=0) for clip in clips]
    frames = max(len(clip.logits) for clip in clips)
    tolerance = logit_tolerance(CONFIG, frames + CONFIG.num_extra_tokens, weights()["proj.weight"])
    tolerance += 2 * mean_tolerance(frames)
    for answer in answers:
        assert answer["programs"] == len(PROGRAMS)
        np.testing.assert_allclose(answer["logits"], expected, atol=tolerance, rtol=0)
    assert answers[0]["counters"]["fxgraph_cache_miss"] == len(PROGRAMS)
    assert answers[1]["counters"]["autograd_cache_hit"] == len(PROGRAMS)
    assert "fxgraph_cache_miss" not in answers[1]["counters"]
    assert (tmp_path / "cache" / "inductor").is_dir()
    assert (tmp_path / "cache").stat().st_mode & 0o077 == 0
