from __future__ import annotations

import gc
import weakref
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from service.errors import CheckpointInvalid, SettingsInvalid
from service.model.manifest import Manifest
from service.model.probe import speech_like
from service.results import BatchOutput, Clip, ClipOutput, Floats, Span
from tests.checkpoints import LABELS, make_weights, model_conf, write_hub_directory

pytest.importorskip("torch")
pytestmark = pytest.mark.torch

import torch  # noqa: E402

from service.inference.backends import torch as torch_backend  # noqa: E402
from service.inference.backends.torch import Dtype, TorchBackend  # noqa: E402
from service.model.config import ModelConfig  # noqa: E402
from service.model.prepare import prepare  # noqa: E402
from service.model.store import find  # noqa: E402


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    base = tmp_path_factory.mktemp("backend")
    conf = model_conf()
    write_hub_directory(base / "hub", conf, make_weights(ModelConfig.from_hub(conf), len(LABELS)))
    return base / "model", prepare(base / "hub", base / "model", id="small", int8=False)


@pytest.fixture(scope="module")
def backend(prepared: tuple[Path, Manifest]) -> TorchBackend:
    return TorchBackend(*prepared)


@pytest.fixture(scope="module")
def padding(prepared: tuple[Path, Manifest]) -> TorchBackend:
    """What runs on CUDA, on the CPU."""
    return TorchBackend(*prepared, padded=True)


def answer(backend: TorchBackend, clip: Clip) -> ClipOutput:
    return backend.run([clip]).clips[0]


def silence_around(speech: Floats, before: float, after: float, rate: int = 16_000) -> Floats:
    return np.concatenate(
        [np.zeros(round(before * rate), np.float32), speech, np.zeros(round(after * rate), np.float32)]
    )


CLIPS = [
    Clip(speech_like(1.0, 0), 16_000),
    Clip(silence_around(speech_like(0.5, 1), 0.4, 0.3), 16_000),
    Clip(speech_like(0.8, 2), 44_100, frame_embeddings=True),
    Clip(np.zeros(8000, np.float32), 16_000),
    Clip(speech_like(0.3, 3), 8000, trim=False),
    Clip(speech_like(0.025, 4)[:400], 16_000),
    Clip(speech_like(3.1, 5), 16_000, frame_embeddings=True),
]


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
    for clip, found in zip(clips, run.clips, strict=True):
        expected = answer(backend, clip)
        assert (found.speech, found.scored) == (expected.speech, expected.scored)
        np.testing.assert_allclose(found.logits, expected.logits, atol=2e-5, rtol=0)
        np.testing.assert_allclose(found.embedding, expected.embedding, atol=1e-5, rtol=0)
        assert (found.frame_embeddings is None) == (not clip.frame_embeddings)


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
            np.testing.assert_allclose(found.frame_embeddings.mean(axis=0), found.embedding, atol=1e-6)


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


def test_silence_is_scored_whole_and_named(backend: TorchBackend) -> None:
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


def test_nothing_of_a_run_stays(padding: TorchBackend) -> None:
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
    broken._encoder.proj = torch.nn.Linear(64, len(LABELS)).requires_grad_(False)
    broken._encoder.proj.bias.fill_(float("inf"))
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


def test_closing_lets_go_of_the_weights(prepared: tuple[Path, Manifest]) -> None:
    backend = TorchBackend(*prepared)
    encoder = weakref.ref(backend._encoder)
    backend.close()
    gc.collect()
    assert encoder() is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("device", ["cuda", "cuda:3"])
def test_a_gpu_that_is_not_there(prepared: tuple[Path, Manifest], device: str) -> None:
    with pytest.raises(SettingsInvalid, match="no usable GPU"):
        TorchBackend(*prepared, device=device)


def test_weights_of_another_shape(prepared: tuple[Path, Manifest], tmp_path: Path) -> None:
    from safetensors.torch import save_file

    directory, manifest = prepared
    save_file({"proj.weight": torch.zeros(9, 64), "proj.bias": torch.zeros(9)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointInvalid, match="has no weight"):
        TorchBackend(tmp_path, manifest)
    assert directory != tmp_path


@pytest.mark.parametrize(("broken", "expected"), [((), "fp16"), (("fp16",), "bf16"), (("fp16", "bf16"), "fp32")])
def test_auto_takes_the_first_precision_that_keeps_the_scores(
    prepared: tuple[Path, Manifest], monkeypatch: pytest.MonkeyPatch, broken: tuple[str, ...], expected: str
) -> None:
    directory, manifest = prepared
    dtypes = {torch_backend._DTYPES[name] for name in broken}

    def difference(reference: object, encoder: object, device: object, dtype: torch.dtype) -> float:
        return float("nan") if dtype in dtypes else 1e-3

    monkeypatch.setattr(torch_backend, "_difference", difference)
    path = directory / "model.safetensors"
    # `meta` stands for a device that is not the CPU.
    found = torch_backend._load(path, manifest, torch.device("meta"), "auto")[1]
    assert found == expected
    for name in broken:
        with pytest.raises(SettingsInvalid, match=name):
            torch_backend._load(path, manifest, torch.device("meta"), name)  # type: ignore[arg-type] # a plain str


def test_precision_is_compared_on_real_numbers(prepared: tuple[Path, Manifest]) -> None:
    directory, manifest = prepared
    cpu = torch.device("cpu")
    encoder, _ = torch_backend._load(directory / "model.safetensors", manifest, cpu, "fp32")
    other, _ = torch_backend._load(directory / "model.safetensors", manifest, cpu, "fp32")
    assert torch_backend._difference(encoder, other, cpu, torch.float32) == 0
    other.proj = torch.nn.Linear(64, len(LABELS)).requires_grad_(False)
    assert torch_backend._difference(encoder, other, cpu, torch.float32) > 1e-2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
class TestCuda:
    @pytest.mark.parametrize("dtype", ["auto", "fp16", "bf16", "fp32"])
    def test_answers_are_those_of_the_cpu(self, dtype: Dtype) -> None:
        """On the embedded model, since the head of random weights makes much of the smallest differences."""
        stored = find("tiny", cache=Path("/nonexistent"), offline=True)
        reference = TorchBackend(stored.directory, stored.manifest)
        backend = TorchBackend(stored.directory, stored.manifest, device="cuda", dtype=dtype)
        for expected, found in zip(reference.run(CLIPS).clips, backend.run(CLIPS).clips, strict=True):
            assert found.speech == expected.speech
            scores = [torch.from_numpy(c.logits).mean(dim=0).softmax(dim=0) for c in (expected, found)]
            torch.testing.assert_close(scores[1], scores[0], atol=1e-4 if dtype == "fp32" else 1e-2, rtol=0)
            assert scores[0].argmax() == scores[1].argmax()

    def test_memory_is_reported_and_given_back(self, prepared: tuple[Path, Manifest]) -> None:
        backend = TorchBackend(*prepared, device="cuda")
        backend.warm_up()
        used = backend.memory()
        assert 0 < used["allocated"] <= used["reserved"]
        assert used["peak"] >= used["allocated"]
        assert used["total"] > used["reserved"]
        for _ in range(3):
            backend.run(CLIPS)
        assert backend.memory()["allocated"] == used["allocated"]
        backend.close()
        gc.collect()
        assert torch.cuda.memory_allocated() < used["allocated"]
