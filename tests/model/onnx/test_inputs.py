"""Clips that share a run of the graph, compared with the same clips alone."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from service.model.onnx import inputs
from service.model.onnx.inputs import lay_out
from tests.model.onnx.test_graph import CONFIG, WEIGHTS
from tests.rounding import feature_tolerance, logit_tolerance

onnx_graph = pytest.importorskip("service.model.onnx.graph")
pytestmark = pytest.mark.torch  # onnx comes with that extra

Frames = tuple[NDArray[np.float32], NDArray[np.float32]]

ONE_FRAME, TWO_FRAMES = CONFIG.samples(1), CONFIG.samples(2)
EXTRALESS = replace(CONFIG, num_extra_tokens=0)
HOP = TWO_FRAMES - ONE_FRAME


def noise(samples: int, level: float = 1.0) -> NDArray[np.float32]:
    return (level * np.random.default_rng(samples).standard_normal(samples)).astype(np.float32)


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> onnxruntime.InferenceSession:
    path = tmp_path_factory.mktemp("graph") / "model.onnx"
    onnx_graph.write_onnx(CONFIG, WEIGHTS, path)
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def run(session: onnxruntime.InferenceSession, waveforms: Sequence[NDArray[np.float32]]) -> Iterator[Frames]:
    inputs = lay_out(waveforms, CONFIG)
    features, logits = session.run(["features", "logits"], inputs.tensors)
    for frames in inputs.frames:
        yield features[frames], logits[frames]


def assert_same_but_for_rounding(one: Frames, other: Frames) -> None:
    tokens = other[0].shape[0] + CONFIG.num_extra_tokens
    np.testing.assert_allclose(one[0], other[0], atol=feature_tolerance(CONFIG, tokens), rtol=0)
    of_logits = logit_tolerance(CONFIG, tokens, WEIGHTS["proj.weight"])
    np.testing.assert_allclose(one[1], other[1], atol=of_logits, rtol=0)


@pytest.mark.parametrize(
    "lengths",
    [
        (ONE_FRAME, ONE_FRAME),
        (ONE_FRAME, 16_000, ONE_FRAME + 1),
        (TWO_FRAMES - 1, TWO_FRAMES, TWO_FRAMES + 1),
        (10 * HOP, 10 * HOP - 1, 10 * HOP + 1, 10 * HOP + ONE_FRAME),
        (9_137, 401, 20_000, 5_555),
    ],
)
def test_clips_that_share_a_run_have_the_results_of_single_clips(
    session: onnxruntime.InferenceSession, lengths: tuple[int, ...]
) -> None:
    waveforms = [noise(samples) for samples in lengths]
    for waveform, found in zip(waveforms, run(session, waveforms), strict=True):
        (alone,) = run(session, [waveform])
        assert found[0].shape[0] == CONFIG.frames(waveform.size)
        assert_same_but_for_rounding(found, alone)


@pytest.mark.parametrize("position", [0, 1, 2])
def test_an_answer_does_not_depend_on_other_clips_of_the_run(
    session: onnxruntime.InferenceSession, position: int
) -> None:
    """To the last bit, since clips of equal lengths are summed in the same order on every processor."""
    clip, size = noise(8_000), 4_000
    answers = []
    for other in (noise(size), noise(size, level=1e4), np.zeros(size, np.float32), np.full(size, 1e6, np.float32)):
        clips = [other, other]
        clips.insert(position, clip)
        answers.append(list(run(session, clips))[position])
    for features, logits in answers[1:]:
        np.testing.assert_array_equal(features, answers[0][0])
        np.testing.assert_array_equal(logits, answers[0][1])


def test_the_order_of_clips_is_that_of_the_answers(session: onnxruntime.InferenceSession) -> None:
    waveforms = [noise(samples) for samples in (3_000, 7_000, 5_000)]
    forwards, backwards = list(run(session, waveforms)), list(run(session, waveforms[::-1]))
    for one, other in zip(forwards, backwards[::-1], strict=True):
        assert_same_but_for_rounding(one, other)


def test_blocks_of_attention_are_equal_and_no_larger_than_they_may_be() -> None:
    for tokens in (1, 11, 64, 259, 1009, 15_009):
        ((start, end, size, steps, too_many),) = plan(tokens)
        assert (start, end) == (0, tokens)
        assert size * steps - tokens == too_many < steps
        assert size <= 64 or CONFIG.num_heads * size * tokens <= inputs.ATTENTION_ELEMENTS
        assert steps == 1 or size > 32


def plan(tokens: int) -> list[list[int]]:
    found: list[list[int]] = lay_out([noise(CONFIG.samples(tokens))], EXTRALESS).tensors["plan"].tolist()
    return found


def test_a_clip_alone_is_not_copied() -> None:
    clip = noise(5_000)
    assert lay_out([clip], CONFIG).tensors["waveform"] is clip
