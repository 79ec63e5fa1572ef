"""Clips in one run of the graph against the same clips alone."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from service.model.onnx import inputs
from service.model.onnx.inputs import lay_out
from tests.model.onnx.test_graph import CONFIG, WEIGHTS

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
def test_clips_of_one_run_answer_as_alone(session: onnxruntime.InferenceSession, lengths: tuple[int, ...]) -> None:
    waveforms = [noise(samples) for samples in lengths]
    for waveform, (features, logits) in zip(waveforms, run(session, waveforms), strict=True):
        ((alone, alone_logits),) = run(session, [waveform])
        assert features.shape[0] == CONFIG.frames(waveform.size)
        np.testing.assert_allclose(features, alone, atol=1e-6)
        np.testing.assert_allclose(logits, alone_logits, atol=1e-6)


def test_what_a_neighbour_says_does_not_matter(session: onnxruntime.InferenceSession) -> None:
    clip = noise(8_000)
    neighbours = [noise(4_000, level=1e4), np.zeros(3_000, np.float32), np.full(5_000, 1e6, np.float32)]
    (alone,) = run(session, [clip])
    for neighbour in neighbours:
        for together in ([clip, neighbour], [neighbour, clip]):
            features, _ = list(run(session, together))[0 if together[0] is clip else 1]
            np.testing.assert_allclose(features, alone[0], atol=1e-6)


def test_the_order_of_clips_is_that_of_the_answers(session: onnxruntime.InferenceSession) -> None:
    waveforms = [noise(samples) for samples in (3_000, 7_000, 5_000)]
    forwards, backwards = list(run(session, waveforms)), list(run(session, waveforms[::-1]))
    for (features, _), (reversed_features, _) in zip(forwards, backwards[::-1], strict=True):
        np.testing.assert_allclose(features, reversed_features, atol=1e-6)


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
