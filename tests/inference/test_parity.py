"""FunASR on a hub directory is the reference for scores and embeddings of both backends on the prepared model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from loadtests.common.hub_checkpoints import (
    default_clips,
    emodb_clips,
    make_weights,
    model_conf,
    odd_model_conf,
    spread_labels,
    write_hub_directory,
)
from service.inference.backend import Backend
from service.inference.backends.onnx_backend import OnnxBackend
from service.model.config import ModelConfig
from service.model.manifest import Manifest
from service.model.synthetic_speech import speech_like
from service.results import Clip, ClipOutput, Floats
from tests.rounding import embedding_tolerance, mean_tolerance, product_tolerance, score_tolerance

pytest.importorskip("torch")
pytest.importorskip("funasr")
pytestmark = pytest.mark.torch

import torch  # noqa: E402

from service.inference.backends.torch_backend import TorchBackend  # noqa: E402
from service.model.prepare import prepare  # noqa: E402

TOLERANCE = 1e-4
"""What the documentation promises."""

LENGTHS = (400, 401, 719, 720, 16_000, 160_001)
CONFS = {
    "as published": model_conf(),
    "odd": odd_model_conf(decoder=False),
}


class ModelOutput(NamedTuple):
    """Labels that may be answered, their scores, and the embedding."""

    labels: list[str]
    scores: Floats
    embedding: Floats


class Case(NamedTuple):
    """One model: FunASR on its checkpoint, and the prepared model."""

    reference: Callable[[Floats], ModelOutput]
    directory: Path
    manifest: Manifest
    head: Floats


def funasr_on(directory: Path) -> Callable[[Floats], ModelOutput]:
    from funasr import AutoModel

    model: Any = AutoModel(model=str(directory), disable_update=True, disable_pbar=True, disable_log=True, ncpu=1)

    def generate(waveform: Floats) -> ModelOutput:
        (found,) = model.generate(waveform, granularity="utterance", extract_embedding=True)
        return ModelOutput(found["labels"], np.array(found["scores"], np.float32), found["feats"])

    return generate


@pytest.fixture(scope="module", params=list(CONFS))
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    base = tmp_path_factory.mktemp("parity")
    conf = CONFS[request.param]
    config = ModelConfig.from_hub(conf)
    weights = make_weights(config, 9)
    spread_labels(config, weights, default_clips())
    # With a head of gain 2, the errors that follow from rounding are below the promise.
    gain = np.linalg.norm(weights["proj.weight"], axis=1).max()
    for name in ("proj.weight", "proj.bias"):
        weights[name] *= 2 / gain
    write_hub_directory(base / "hub", conf, weights)
    manifest = prepare(base / "hub", base / "model", id="small", int8=False)
    return Case(funasr_on(base / "hub"), base / "model", manifest, weights["proj.weight"])


@pytest.fixture(scope="module", params=["torch", "onnx"])
def backend(request: pytest.FixtureRequest, case: Case) -> Backend:
    if request.param == "torch":
        return TorchBackend(case.directory, case.manifest)
    return OnnxBackend(case.directory, case.manifest, dtype="fp32", threads=1)


def scores_of(backend: Backend, logits: Floats) -> tuple[list[str], Floats]:
    """Labels and scores as FunASR computes them: softmax of the mean of frame logits, without unused labels."""
    info = backend.info
    kept = [i for i in range(len(info.labels)) if i not in info.masked]
    scores = torch.from_numpy(logits[:, kept]).mean(dim=0).softmax(dim=-1)
    return [info.labels[i].native for i in kept], scores.numpy()


def check(case: Case, backend: Backend, found: ClipOutput, expected: ModelOutput) -> None:
    labels, scores = scores_of(backend, found.logits)
    assert labels == expected.labels
    config, frames = case.manifest.config, found.logits.shape[0]
    of_scores, of_embedding = score_tolerance(config, frames, case.head), embedding_tolerance(config, frames)
    assert max(of_scores, of_embedding) < TOLERANCE
    np.testing.assert_allclose(scores, expected.scores, atol=of_scores, rtol=0)
    np.testing.assert_allclose(found.embedding, expected.embedding, atol=of_embedding, rtol=0)
    assert expected.scores[scores.argmax()] >= expected.scores.max() - 2 * of_scores


def test_real_clips(case: Case, backend: Backend) -> None:
    clips = emodb_clips()
    assert len(clips) >= 6
    seen = set()
    for samples in clips:
        expected = case.reference(samples)
        check(case, backend, backend.run([Clip(samples, 16_000, trim=False)]).clips[0], expected)
        seen.add(int(expected.scores.argmax()))
    assert len(seen) >= 2, "with one label for all clips, the comparison would prove nothing"


@pytest.mark.parametrize("samples", LENGTHS)
def test_odd_lengths(case: Case, backend: Backend, samples: int) -> None:
    waveform = speech_like(samples / 16_000, seed=samples)
    assert waveform.size == samples
    check(case, backend, backend.run([Clip(waveform, 16_000, trim=False)]).clips[0], case.reference(waveform))


def test_extreme_levels(case: Case, backend: Backend) -> None:
    for waveform in (speech_like(0.5) * 1e-4, speech_like(0.5) * 1e4, speech_like(0.5) + 3, np.zeros(8000, np.float32)):
        found = backend.run([Clip(waveform.astype(np.float32), 16_000, trim=False)]).clips[0]
        check(case, backend, found, case.reference(waveform.astype(np.float32)))


def test_the_mean_of_frame_logits_is_the_head_of_the_embedding(case: Case, backend: Backend) -> None:
    from safetensors.numpy import load_file

    weights = load_file(case.directory / "model.safetensors")
    for samples in emodb_clips():
        found = backend.run([Clip(samples, 16_000, frame_embeddings=True)]).clips[0]
        assert found.frame_embeddings is not None
        head, bias = weights["proj.weight"], weights["proj.bias"]
        utterance = head.astype(np.float64) @ found.embedding + bias
        # The errors of the frames' logits, and of the embedding, which the head multiplies.
        tolerance = product_tolerance(found.frame_embeddings, head, bias)
        tolerance += mean_tolerance(len(found.logits)) * np.abs(head).sum(axis=1).max()
        np.testing.assert_allclose(found.logits.mean(axis=0, dtype=np.float64), utterance, atol=tolerance, rtol=0)


def test_short_clips_that_share_a_run_answer_as_funasr(case: Case) -> None:
    backend = OnnxBackend(case.directory, case.manifest, dtype="fp32", threads=1)
    waveforms = [waveform[:20_000] for waveform in emodb_clips()] + [speech_like(n / 16_000, n) for n in LENGTHS]
    run = backend.run([Clip(waveform, 16_000, trim=False) for waveform in waveforms])
    for waveform, found in zip(waveforms, run.clips, strict=True):
        check(case, backend, found, case.reference(waveform))


def test_a_padded_batch_answers_as_funasr(case: Case) -> None:
    backend = TorchBackend(case.directory, case.manifest)
    backend._padded = True
    waveforms = emodb_clips() + [speech_like(samples / 16_000, samples) for samples in LENGTHS]
    run = backend.run([Clip(waveform, 16_000, trim=False) for waveform in waveforms])
    assert run.padding_ratio > 0
    for waveform, found in zip(waveforms, run.clips, strict=True):
        check(case, backend, found, case.reference(waveform))
