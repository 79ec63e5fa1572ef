"""Scores from the frame logits of a backend.

The head is linear, so the logits of an utterance are the mean of its frame logits. Scores are the softmax of such a
mean, in float64: over all frames, the frames of a window, or a single frame.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from service.errors import FieldError, InferenceFailed, InvalidOptions
from service.results import (
    FRAME_HOP,
    SAMPLING_RATE,
    ClipOutput,
    EmbeddingChoice,
    Floats,
    FrameScores,
    Granularity,
    Label,
    ModelInfo,
    Recognition,
    Span,
)

FRAME_SECONDS = FRAME_HOP / SAMPLING_RATE
"""Seconds from one model frame to the next, and the finest window."""

_MAX_ERRORS = 20
_MAX_ECHO = 40


def recognition(
    output: ClipOutput,
    model: ModelInfo,
    *,
    granularity: Granularity,
    embedding: EmbeddingChoice,
    labels: tuple[int, ...] | None = None,
    window: float | None = None,
    hop: float | None = None,
    offset: float = 0.0,
) -> Recognition:
    """Compute the scores of one clip.

    Args:
        output: of the backend, with logits of shape (frame, label).
        model: the model that made it.
        granularity: with `frame`, scores over time are added to those of the utterance.
        embedding: which embedding to return.
        labels: indices of the labels to return, in this order, with scores renormalised over them; None for all that
            are not masked.
        window: seconds over which frame scores are pooled; by default `hop`. Without both there is one window for each
            frame.
        hop: seconds from one window to the next; by default `window`. Both are rounded to whole frames.
        offset: seconds that were cut from the file before the clip; added to all times.

    Raises:
        InferenceFailed: if the model's output is not finite.
    """
    chosen = _chosen(labels, model)
    logits = output.logits[:, chosen].astype(np.float64)
    vectors = _embedding(output, embedding)
    if not (logits.size and np.isfinite(logits).all() and (vectors is None or np.isfinite(vectors).all())):
        raise InferenceFailed("The model's output for this audio is not finite.")
    frames = None
    if granularity == "frame":
        frames = _frame_scores(logits, output.scored.start + offset, window, hop)
    speech = output.speech
    return Recognition(
        labels=tuple(model.labels[index] for index in chosen),
        scores=_softmax(logits.mean(axis=0)),
        embedding=vectors,
        frames=frames,
        speech=None if speech is None else Span(speech.start + offset, speech.end + offset),
    )


class WeightedMean:
    """The mean over parts of one recording, weighted by their durations, with constant memory.

    Attributes:
        seconds: duration of all parts.
    """

    def __init__(self) -> None:
        self._labels: tuple[Label, ...] = ()
        self._scores: NDArray[np.float64] | None = None
        self._embedding: NDArray[np.float64] | None = None
        self.seconds = 0.0

    def add(self, recognition: Recognition, seconds: float) -> None:
        """Add a part of `seconds` > 0; all parts have the same labels, and all or none have an embedding."""
        self.seconds += seconds
        self._labels = recognition.labels
        self._scores = _plus(self._scores, recognition.scores, seconds)
        if recognition.embedding is not None:
            self._embedding = _plus(self._embedding, recognition.embedding, seconds)

    def recognition(self) -> Recognition | None:
        """The mean, without scores over time; None if there are no parts."""
        if self._scores is None:
            return None
        embedding = None if self._embedding is None else (self._embedding / self.seconds).astype(np.float32)
        scores = (self._scores / self.seconds).astype(np.float32)
        return Recognition(labels=self._labels, scores=scores, embedding=embedding, frames=None, speech=None)


def resolve_labels(names: Sequence[str], model: ModelInfo) -> tuple[int, ...]:
    """Indices of the labels with these names, in their order.

    Args:
        names: English (any case), Chinese or native spellings.
        model: the model with the labels.

    Raises:
        InvalidOptions: with every label that is unknown, masked in this model, or given twice.
    """
    indices = {
        _fold(spelling): index
        for index, label in enumerate(model.labels)
        for spelling in (label.en, label.zh, label.native)
    }
    found: list[int] = []
    errors: list[FieldError] = []
    for name in names:
        index = indices.get(_fold(name))
        shown = repr(name if len(name) <= _MAX_ECHO else name[:_MAX_ECHO] + "…")
        if index is None:
            errors.append(FieldError("labels", f"{shown} is not a label of the model", "unknown_label"))
        elif index in model.masked:
            errors.append(FieldError("labels", f"the model never answers {shown}", "masked_label"))
        elif index in found:
            errors.append(FieldError("labels", f"{shown} is given more than once", "repeated_label"))
        else:
            found.append(index)
        if len(errors) == _MAX_ERRORS:
            break
    if not names:
        errors.append(FieldError("labels", "no label is named", "no_label"))
    if errors:
        known = ", ".join(label.en for i, label in enumerate(model.labels) if i not in model.masked)
        raise InvalidOptions(f"The labels must be different ones of: {known}.", errors)
    return tuple(found)


def _fold(name: str) -> str:
    return name.strip().casefold()


def _chosen(labels: tuple[int, ...] | None, model: ModelInfo) -> list[int]:
    answerable = [index for index in range(len(model.labels)) if index not in model.masked]
    return answerable if labels is None else list(labels)


def _embedding(output: ClipOutput, choice: EmbeddingChoice) -> Floats | None:
    if choice == "none":
        return None
    if choice == "utterance":
        return output.embedding
    return output.frame_embeddings


def _frame_scores(logits: NDArray[np.float64], start: float, window: float | None, hop: float | None) -> FrameScores:
    length = _whole_frames(window if window is not None else hop)
    step = _whole_frames(hop if hop is not None else window)
    return FrameScores(
        start=start,
        hop=step * FRAME_HOP / SAMPLING_RATE,
        window=length * FRAME_HOP / SAMPLING_RATE,
        scores=_softmax(_pool(logits, length, step)),
    )


def _whole_frames(seconds: float | None) -> int:
    return 1 if seconds is None else round(seconds / FRAME_SECONDS)


def _plus(total: NDArray[np.float64] | None, values: Floats, weight: float) -> NDArray[np.float64]:
    more = weight * values.astype(np.float64)
    return more if total is None else total + more


def _pool(logits: NDArray[np.float64], length: int, step: int) -> NDArray[np.float64]:
    """Mean of `logits` (frame, label) over windows of `length` frames, one every `step`: (window, label).

    The last window may be shorter. No window begins after one that reaches the end, since it would be a part of it.
    """
    if length == step == 1:
        return logits
    frames = len(logits)
    length, step = min(length, frames), min(step, frames)  # longer ones give the same result
    windows = min(1 + -(-max(frames - length, 0) // step), -(-frames // step))
    begins = np.arange(windows) * step
    ends = np.minimum(begins + length, frames)
    sums = np.concatenate([np.zeros((1, logits.shape[1])), np.cumsum(logits, axis=0)])
    return np.asarray((sums[ends] - sums[begins]) / (ends - begins)[:, None])


def _softmax(logits: NDArray[np.float64]) -> Floats:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True), dtype=np.float32)
