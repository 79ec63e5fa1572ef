from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loadtests.common.hub_checkpoints import LABELS
from service.errors import BackendBroken, SettingsInvalid
from service.inference.backends.compile_options import CompileOptions
from service.model.manifest import Manifest
from service.model.synthetic_speech import speech_like
from service.results import BatchOutput, Clip, ClipOutput, Span
from tests.inference.small_model import CLIPS, assert_same_answers, prepare_small, silence_around
from tests.rounding import mean_tolerance

pytest.importorskip("torch")
pytestmark = pytest.mark.torch

import torch  # noqa: E402

from service.inference.backends import cuda, torch_backend  # noqa: E402
from service.inference.backends.torch_backend import TorchBackend  # noqa: E402
from service.inference.backends.transfer import Transfer  # noqa: E402


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    return prepare_small(tmp_path_factory.mktemp("backend"))


@pytest.fixture(scope="module")
def backend(prepared: tuple[Path, Manifest]) -> TorchBackend:
    return TorchBackend(*prepared)


@pytest.fixture(scope="module")
def padding(prepared: tuple[Path, Manifest]) -> TorchBackend:
    """Pads clips into batches, as on CUDA, but on the CPU."""
    backend = TorchBackend(*prepared)
    backend._padded = True
    return backend


def answer(backend: TorchBackend, clip: Clip) -> ClipOutput:
    return backend.run([clip]).clips[0]


def test_info(backend: TorchBackend, prepared: tuple[Path, Manifest]) -> None:
    info = backend.info
    assert (info.id, info.backend, info.device, info.dtype) == ("small", "torch", "cpu", "fp32")
    assert info.revision == prepared[1].revision
    assert [label.native for label in info.labels] == list(LABELS)
    assert info.masked == {1, 7}


@pytest.mark.parametrize("order", [range(7), range(6, -1, -1), [3, 3, 0]])
def test_a_padded_run_answers_as_single_clips_in_order(
    backend: TorchBackend, padding: TorchBackend, order: Sequence[int]
) -> None:
    clips = [CLIPS[index] for index in order]
    run = padding.run(clips)
    assert 0 < run.padding_ratio < 1
    assert_same_answers(run.clips, [answer(backend, clip) for clip in clips])
    assert [found.frame_embeddings is not None for found in run.clips] == [clip.frame_embeddings for clip in clips]


def test_shapes_and_types(backend: TorchBackend) -> None:
    run = backend.run(CLIPS)
    assert run.padding_ratio == 0
    assert run.preprocess_seconds > 0
    assert run.inference_seconds > 0
    for clip, found in zip(CLIPS, run.clips, strict=True):
        assert found.logits.dtype == found.embedding.dtype == np.float32
        assert found.logits.shape[1] == len(LABELS)
        assert found.embedding.shape == (64,)
        if clip.frame_embeddings:
            assert found.frame_embeddings is not None
            assert found.frame_embeddings.shape == (found.logits.shape[0], 64)
            mean = found.frame_embeddings.mean(axis=0, dtype=np.float64)
            np.testing.assert_allclose(found.embedding, mean, atol=mean_tolerance(len(found.logits)), rtol=0)


def test_only_speech_is_scored(backend: TorchBackend) -> None:
    found = answer(backend, Clip(silence_around(speech_like(1.0), 1.0, 2.0), 16_000))
    assert found.speech == found.scored
    assert found.scored.start == pytest.approx(0.95, abs=0.05)
    assert found.scored.end == pytest.approx(2.05, abs=0.05)
    assert found.logits.shape[0] == round((found.scored.end - found.scored.start) * 16_000 - 80) // 320


def test_untrimmed_clips_are_scored_whole_and_still_say_where_speech_is(backend: TorchBackend) -> None:
    found = answer(backend, Clip(silence_around(speech_like(1.0), 1.0, 1.0), 16_000, trim=False))
    assert found.scored == Span(0.0, 3.0)
    assert found.speech is not None
    assert found.speech.start == pytest.approx(0.95, abs=0.05)


def test_silence_is_scored_whole_and_reported(backend: TorchBackend) -> None:
    found = answer(backend, Clip(np.zeros(24_000, np.float32), 16_000))
    assert found.speech is None
    assert found.scored == Span(0.0, 1.5)
    assert np.isfinite(found.logits).all()


def test_times_are_those_of_the_clip_at_any_rate(backend: TorchBackend) -> None:
    found = answer(backend, Clip(silence_around(speech_like(3.0)[:44_100], 1.0, 1.0, 44_100), 44_100))
    assert found.speech is not None
    assert found.speech.start == pytest.approx(0.95, abs=0.05)
    assert found.speech.end == pytest.approx(2.05, abs=0.05)


def test_read_only_samples_are_taken(backend: TorchBackend) -> None:
    samples = speech_like(0.5)
    samples.flags.writeable = False
    assert answer(backend, Clip(samples, 16_000)).logits.shape[1] == len(LABELS)


def test_a_run_leaves_no_references(padding: TorchBackend) -> None:
    samples = speech_like(0.5)
    clip = Clip(samples, 16_000)
    run = padding.run([clip, CLIPS[0]])
    kept = run.clips[0].embedding
    assert kept.base is None
    gone = [weakref.ref(samples), weakref.ref(run.clips[1].logits)]
    del samples, clip, run
    gc.collect()
    assert [ref() for ref in gone] == [None, None]


def test_an_answer_that_is_not_finite_is_an_error(prepared: tuple[Path, Manifest]) -> None:
    broken = TorchBackend(*prepared)
    broken._encoder._encoder.proj.bias.fill_(float("inf"))
    with pytest.raises(FloatingPointError):
        broken.run(CLIPS[:1])


def test_warm_up_runs_the_largest_batch_first(backend: TorchBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[list[float]] = []
    original = TorchBackend.run

    def spy(self: TorchBackend, clips: Sequence[Clip]) -> BatchOutput:
        runs.append([clip.duration for clip in clips])
        return original(self, clips)

    monkeypatch.setattr(TorchBackend, "run", spy)
    backend.warm_up()
    assert len(runs[0]) == backend.limits.clips
    assert sum(runs[0]) == pytest.approx(backend.limits.seconds)
    assert len(runs[1]) == 1


def test_no_device_memory_on_the_cpu(backend: TorchBackend) -> None:
    assert backend.memory() == {}


def test_closing_releases_the_weights(prepared: tuple[Path, Manifest]) -> None:
    backend = TorchBackend(*prepared)
    encoder = weakref.ref(backend._encoder._encoder)
    backend.close()
    gc.collect()
    assert encoder() is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("device", ["cuda", "cuda:3"])
def test_a_missing_gpu_is_an_error(prepared: tuple[Path, Manifest], device: str) -> None:
    with pytest.raises(SettingsInvalid, match="no usable GPU"):
        TorchBackend(*prepared, device=device)


def test_untrimmed_clips_are_encoded_before_the_bounds_of_speech_are_fetched(
    padding: TorchBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []

    def noted(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            order.append(name)
            return original(*args)

        return call

    monkeypatch.setattr(Transfer, "to_host", noted("fetch", Transfer.to_host))
    monkeypatch.setattr(TorchBackend, "_encode", noted("encode", TorchBackend._encode))
    whole = [Clip(clip.samples, clip.sampling_rate, trim=False) for clip in CLIPS]
    found = padding.run(whole).clips
    assert order == ["encode"] * order.count("encode") + ["fetch", "fetch"]
    order.clear()
    expected = padding.run(CLIPS).clips
    assert order == ["fetch"] + ["encode"] * order.count("encode") + ["fetch"]
    assert [clip.speech for clip in found] == [clip.speech for clip in expected]
    assert found[3].speech is None


class Held:
    """An object that a local variable of a failing run refers to."""


def test_a_batch_that_does_not_fit_leaves_its_memory_free(
    backend: TorchBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[weakref.ref[Held]] = []
    freed: list[bool] = []

    def exhaust(self: TorchBackend, clips: Sequence[Clip]) -> BatchOutput:
        batch = Held()
        held.append(weakref.ref(batch))
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr(TorchBackend, "_run", exhaust)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: freed.append(held[-1]() is None))
    with pytest.raises(MemoryError, match=r"7 clips do not fit: .* 20.00 GiB"):
        backend.run(CLIPS)
    assert freed == [True]


@pytest.mark.parametrize("error", [torch.AcceleratorError, RuntimeError])
def test_a_device_that_is_lost_breaks_the_backend(
    backend: TorchBackend, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def fail(self: TorchBackend, clips: Sequence[Clip]) -> BatchOutput:
        raise error("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(TorchBackend, "_run", fail)
    with pytest.raises(error, match="illegal memory access"):  # the CPU stays usable
        backend.run(CLIPS[:1])
    monkeypatch.setattr(torch_backend, "usable", lambda device: False)
    with pytest.raises(BackendBroken, match="cpu does not work any more") as caught:
        backend.run(CLIPS[:1])
    assert isinstance(caught.value.__cause__, error)


@pytest.mark.parametrize(
    ("error", "works"),
    [
        (None, True),
        (torch.OutOfMemoryError, True),
        (torch.AcceleratorError, False),
        (RuntimeError, False),
    ],
)
def test_a_trial_call_decides_whether_a_gpu_is_usable(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception] | None, works: bool
) -> None:
    asked: list[torch.device] = []

    def synchronize(device: torch.device) -> None:
        asked.append(device)
        if error:
            raise error("CUDA error")

    monkeypatch.setattr(torch, "zeros", lambda size, device: None)
    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    device = torch.device("cuda", 0)
    assert cuda.usable(device) == works
    assert asked == [device]
    assert cuda.usable(torch.device("cpu"))
    assert asked == [device]


def test_the_device_may_fail_while_programs_are_made(
    prepared: tuple[Path, Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(function: object, **options: object) -> object:
        return failing

    def failing(*args: object) -> object:
        raise torch.AcceleratorError("CUDA error: unspecified launch failure")

    monkeypatch.setattr(torch, "compile", fail)
    backend = TorchBackend(*prepared, compile_options=CompileOptions("on", clips=1, seconds=2.0))
    backend.run(CLIPS)
    monkeypatch.setattr(torch_backend, "usable", lambda device: False)
    with pytest.raises(BackendBroken):
        backend.warm_up()
