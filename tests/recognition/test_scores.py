from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from service.errors import InferenceFailed, InvalidOptions
from service.recognition.scores import WeightedMean, recognition, resolve_labels
from service.results import ClipOutput, Floats, Label, ModelInfo, Recognition, Span
from tests.inference.fake_backend import LABELS, model_info

MODEL = model_info()
LOGITS = st.floats(-20, 20, width=32)
MASKED = model_info((*LABELS[:3], Label("unuse_0", "unuse_0", "unuse_0"), *LABELS[3:]), frozenset({3}))


def output_of(logits: Floats, *, start: float = 0.0, speech: Span | None = None) -> ClipOutput:
    width = np.arange(4, dtype=np.float32)
    frames = np.tile(width, (len(logits), 1))
    return ClipOutput(logits, width, frames, speech, Span(start, start + len(logits) * 0.02))


def random_logits(frames: int, labels: int = 9, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).normal(0, 3, (frames, labels)).astype(np.float32)


def frame_scores(
    logits: Floats, window: float | None = None, hop: float | None = None, model: ModelInfo = MODEL
) -> Recognition:
    return recognition(output_of(logits), model, granularity="frame", embedding="none", window=window, hop=hop)


def utterance(logits: Floats, model: ModelInfo = MODEL, labels: tuple[int, ...] | None = None) -> Recognition:
    return recognition(output_of(logits), model, granularity="utterance", embedding="none", labels=labels)


def softmax(values: np.ndarray) -> np.ndarray:
    powers = np.exp(values.astype(np.float64))
    return np.asarray(powers / powers.sum())


class TestUtterance:
    def test_softmax_of_the_mean_over_frames(self) -> None:
        logits = random_logits(50)
        answered = utterance(logits)
        np.testing.assert_allclose(answered.scores, softmax(logits.mean(axis=0)), atol=1e-6)
        assert answered.scores.dtype == np.float32
        assert answered.labels == LABELS
        assert answered.frames is None
        assert answered.embedding is None

    def test_a_known_value(self) -> None:
        logits = np.zeros((3, 9), np.float32)
        logits[:, 3] = [np.log(8), 0, 2 * np.log(8)]  # mean log 8, so the softmax is 8/16
        answered = utterance(logits)
        np.testing.assert_allclose(answered.scores, [1 / 16] * 3 + [1 / 2] + [1 / 16] * 5, rtol=1e-6)
        assert answered.labels[answered.best].en == "happy"

    def test_masked_labels_have_no_scores(self) -> None:
        logits = random_logits(20, 10)
        logits[:, 3] = 100.0
        answered = utterance(logits, MASKED)
        assert answered.labels == LABELS
        np.testing.assert_allclose(answered.scores, utterance(np.delete(logits, 3, axis=1)).scores)

    def test_chosen_labels_keep_their_order_and_are_renormalised(self) -> None:
        logits = random_logits(20)
        everything = utterance(logits).scores
        answered = utterance(logits, labels=(6, 0, 3))
        assert [label.en for label in answered.labels] == ["sad", "angry", "happy"]
        expected = everything[[6, 0, 3]]
        np.testing.assert_allclose(answered.scores, expected / expected.sum(), rtol=1e-5)

    def test_a_single_chosen_label_has_score_one(self) -> None:
        assert utterance(random_logits(5), labels=(2,)).scores.tolist() == [1.0]

    def test_huge_logits_do_not_overflow(self) -> None:
        logits = np.zeros((2, 9), np.float32)
        logits[:, 1] = 1e30
        assert utterance(logits).scores.tolist() == [0, 1, 0, 0, 0, 0, 0, 0, 0]

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    def test_logits_that_are_not_finite_are_a_failure(self, bad: float) -> None:
        logits = random_logits(5)
        logits[2, 4] = bad
        with pytest.raises(InferenceFailed, match="not finite"):
            utterance(logits)
        masked = random_logits(5, 10)
        masked[:, 3] = bad
        assert utterance(masked, MASKED).scores.sum() == pytest.approx(1)

    def test_an_output_without_frames_is_a_failure(self) -> None:
        with pytest.raises(InferenceFailed):
            utterance(np.zeros((0, 9), np.float32))


class TestFrames:
    def test_by_default_there_is_one_window_for_each_frame(self) -> None:
        logits = random_logits(7)
        frames = frame_scores(logits).frames
        assert frames is not None
        assert (frames.start, frames.hop, frames.window) == (0.0, 0.02, 0.02)
        np.testing.assert_allclose(frames.scores, [softmax(row) for row in logits], atol=1e-6)

    @pytest.mark.parametrize(
        ("count", "window", "hop", "windows"),
        [
            (100, 0.5, None, [(0, 25), (25, 50), (50, 75), (75, 100)]),
            (90, 0.5, None, [(0, 25), (25, 50), (50, 75), (75, 90)]),
            (90, None, 0.5, [(0, 25), (25, 50), (50, 75), (75, 90)]),
            (100, 1.0, 0.5, [(0, 50), (25, 75), (50, 100)]),
            (101, 1.0, 0.5, [(0, 50), (25, 75), (50, 100), (75, 101)]),
            (10, 1.0, 0.1, [(0, 10)]),
            (10, 0.04, 0.1, [(0, 2), (5, 7)]),
            (11, 0.04, 0.1, [(0, 2), (5, 7), (10, 11)]),
            (3, 0.02, 0.02, [(0, 1), (1, 2), (2, 3)]),
            (3, 0.04, 0.02, [(0, 2), (1, 3)]),
            (3, 0.049, 0.031, [(0, 2), (2, 3)]),
            (5, 1e300, 1e300, [(0, 5)]),
            (1, 0.5, 0.02, [(0, 1)]),
        ],
    )
    def test_windows(self, count: int, window: float | None, hop: float | None, windows: list[tuple[int, int]]) -> None:
        logits = random_logits(count)
        frames = frame_scores(logits, window, hop).frames
        assert frames is not None
        expected = [softmax(logits[begin:end].astype(np.float64).mean(axis=0)) for begin, end in windows]
        np.testing.assert_allclose(frames.scores, expected, atol=1e-6)

    def test_window_and_hop_are_rounded_to_frames(self) -> None:
        frames = frame_scores(random_logits(100), 0.705, 0.1).frames
        assert frames is not None
        assert (frames.window, frames.hop) == (0.7, 0.1)

    def test_masked_labels_are_left_out(self) -> None:
        logits = random_logits(20, 10)
        masked, plain = frame_scores(logits, 0.1, model=MASKED), frame_scores(np.delete(logits, 3, axis=1), 0.1)
        assert masked.frames is not None
        assert plain.frames is not None
        np.testing.assert_allclose(masked.frames.scores, plain.frames.scores)

    def test_late_windows_are_as_exact_as_the_first(self) -> None:
        logits = random_logits(15_000) + np.float32(
            1000
        )  # five minutes, over which sums in float32 would be wrong by one
        frames = frame_scores(logits, 0.5).frames
        assert frames is not None
        expected = softmax(logits[-25:].astype(np.float64).mean(axis=0) - 1000)
        np.testing.assert_allclose(frames.scores[-1], expected, atol=1e-6)

    @given(
        logits=npst.arrays(np.float32, st.tuples(st.integers(1, 60), st.just(9)), elements=LOGITS),
        window=st.integers(1, 80),
        hop=st.integers(1, 80),
    )
    def test_invariants(self, logits: Floats, window: int, hop: int) -> None:
        count = len(logits)
        answered = frame_scores(logits, window * 0.02, hop * 0.02)
        frames = answered.frames
        assert frames is not None
        np.testing.assert_allclose(frames.scores.sum(axis=1), 1, atol=1e-5)
        rows = len(frames.scores)
        assert (rows - 1) * hop < count, "every window has a frame"
        last_end = (rows - 1) * hop + window
        assert last_end >= count or rows * hop >= count, "the end is covered, or lies between two windows"
        if rows > 1:
            assert (rows - 2) * hop + window < count, "no window after one that reaches the end"
        if window >= count:
            np.testing.assert_allclose(frames.scores[0], answered.scores, atol=1e-6)


class TestTimesAndEmbeddings:
    def test_times_are_relative_to_the_file(self) -> None:
        output = output_of(random_logits(50), start=0.3, speech=Span(0.35, 1.2))
        answered = recognition(output, MODEL, granularity="frame", embedding="none", offset=2.0)
        assert answered.frames is not None
        assert answered.frames.start == pytest.approx(2.3)
        assert answered.speech is not None
        assert (answered.speech.start, answered.speech.end) == pytest.approx((2.35, 3.2))

    def test_silence_has_no_speech(self) -> None:
        answered = recognition(
            output_of(random_logits(5)), MODEL, granularity="utterance", embedding="none", offset=1.0
        )
        assert answered.speech is None

    def test_embeddings(self) -> None:
        output = output_of(random_logits(5))
        chosen = recognition(output, MODEL, granularity="utterance", embedding="utterance").embedding
        assert chosen is output.embedding
        chosen = recognition(output, MODEL, granularity="utterance", embedding="frame").embedding
        assert chosen is output.frame_embeddings

    def test_an_embedding_that_is_not_finite_is_a_failure(self) -> None:
        output = output_of(random_logits(5))
        output.embedding[2] = np.nan
        with pytest.raises(InferenceFailed):
            recognition(output, MODEL, granularity="utterance", embedding="utterance")
        assert recognition(output, MODEL, granularity="utterance", embedding="none").scores.size == 9


class TestResolveLabels:
    def test_all_spellings_in_the_order_given(self) -> None:
        names = ["Sad", "生气", "开心/happy", "<unk>", " NEUTRAL "]
        assert resolve_labels(names, MODEL) == (6, 0, 3, 8, 4)

    def test_every_invalid_label_is_named(self) -> None:
        with pytest.raises(InvalidOptions) as raised:
            resolve_labels(["happy", "joy", "unuse_0", "开心", "sad"], MASKED)
        assert [(error.field, error.kind) for error in raised.value.errors] == [
            ("labels", "unknown_label"),
            ("labels", "masked_label"),
            ("labels", "repeated_label"),
        ]
        assert "'joy'" in raised.value.errors[0].message
        assert "'unuse_0'" in raised.value.errors[1].message
        assert "'开心'" in raised.value.errors[2].message
        assert "surprised" in raised.value.detail
        assert "unuse" not in raised.value.detail

    def test_no_label_at_all(self) -> None:
        with pytest.raises(InvalidOptions) as raised:
            resolve_labels([], MODEL)
        assert [error.kind for error in raised.value.errors] == ["no_label"]

    def test_long_names_and_many_errors_are_shortened(self) -> None:
        with pytest.raises(InvalidOptions) as raised:
            resolve_labels(["x" * 10_000] * 10_000, MODEL)
        assert len(raised.value.errors) <= 20
        assert all(len(error.message) < 100 for error in raised.value.errors)

    @given(st.lists(st.sampled_from(range(9)), unique=True, min_size=1), st.data())
    def test_round_trip(self, indices: list[int], data: st.DataObject) -> None:
        spellings = st.sampled_from(["en", "zh", "native"])
        names = [getattr(LABELS[index], data.draw(spellings)) for index in indices]
        assert resolve_labels(names, MODEL) == tuple(indices)


def mean_of(answers: Sequence[Recognition], seconds: Sequence[float]) -> Recognition:
    mean = WeightedMean()
    for each, duration in zip(answers, seconds, strict=True):
        mean.add(each, duration)
    assert mean.seconds == pytest.approx(sum(seconds))
    found = mean.recognition()
    assert found is not None
    return found


class TestWeightedMean:
    @staticmethod
    def answers(count: int) -> list[Recognition]:
        return [utterance(random_logits(5, seed=seed)) for seed in range(count)]

    def test_weights_are_durations(self) -> None:
        one, other = self.answers(2)
        mean = mean_of([one, other], [9.0, 1.0])
        np.testing.assert_allclose(mean.scores, 0.9 * one.scores + 0.1 * other.scores, atol=1e-6)
        assert mean.scores.dtype == np.float32
        assert mean.scores.sum() == pytest.approx(1, abs=1e-6)
        assert mean.labels == one.labels
        assert (mean.embedding, mean.frames, mean.speech) == (None, None, None)

    def test_embeddings_are_weighted_as_well(self) -> None:
        vectors = [np.full(4, value, np.float32) for value in (1, 2, 5)]
        answers = [replace(answer, embedding=each) for answer, each in zip(self.answers(3), vectors, strict=True)]
        embedding = mean_of(answers, [2.0, 1.0, 1.0]).embedding
        assert embedding is not None
        assert embedding.tolist() == [2.25] * 4
        assert embedding.dtype == np.float32

    def test_the_mean_of_one_is_itself(self) -> None:
        (answer,) = self.answers(1)
        np.testing.assert_allclose(mean_of([answer], [0.3]).scores, answer.scores, rtol=1e-6)

    def test_the_mean_of_none_is_none(self) -> None:
        mean = WeightedMean()
        assert (mean.recognition(), mean.seconds) == (None, 0)

    def test_the_mean_of_thousands_is_exact(self) -> None:
        answers = self.answers(7)
        many = mean_of(answers * 1000, [1.7] * 7000)
        np.testing.assert_allclose(many.scores, mean_of(answers, [1.0] * 7).scores, rtol=1e-6)
