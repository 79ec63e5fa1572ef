"""The data types that the parts of the service exchange.

    bytes ─decode─▶ Waveform ─select channels, cut─▶ Clip ─backend─▶ ClipOutput ─scores─▶ Recognition
    bytes ─decode block by block, cut into utterances─▶ ChannelUtterance ─▶ Clip …

This module imports no other module of the project.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Granularity = Literal["utterance", "frame", "segment"]
EmbeddingChoice = Literal["none", "utterance", "frame"]

SAMPLING_RATE = 16_000
"""The model's sampling rate in Hz."""

FRAME_HOP = 320
"""Samples at 16 kHz from one model frame to the next (50 frames a second)."""

MIN_SAMPLES = 400
"""Samples at 16 kHz that make the first frame (25 ms)."""


@dataclass(frozen=True, slots=True)
class Waveform:
    """Decoded audio: `samples` is float32 of shape (channel, time), `sampling_rate` in Hz.

    Full scale is [-1, 1]; float files may exceed it. `truncated` says whether the file ends before its declared end;
    `unread_bytes` follow behind its audio and were not decoded.
    """

    samples: Floats
    sampling_rate: int
    truncated: bool = False
    unread_bytes: int = 0

    @property
    def duration(self) -> float:
        """Seconds."""
        return float(self.samples.shape[1] / self.sampling_rate)

    @property
    def channels(self) -> int:
        """Number of channels."""
        return int(self.samples.shape[0])


@dataclass(frozen=True, slots=True)
class Clip:
    """One mono waveform for a backend, at its original sampling rate: `samples` is float32 of shape (time,)."""

    samples: Floats
    sampling_rate: int
    trim: bool = True
    frame_embeddings: bool = False

    @property
    def duration(self) -> float:
        """Seconds."""
        return float(self.samples.size / self.sampling_rate)


@dataclass(frozen=True, slots=True)
class DecodedFile:
    """A decoded file: the clips to score, and what it was.

    `duration` is in seconds, `sampling_rate` in Hz; `narrow_band` says whether nothing is above 4.5 kHz, as on
    the telephone. `truncated` and `unread_bytes` are those of the waveform.
    `taken_channel` is the channel that is scored because the mean of all channels cancels out.
    """

    clips: tuple[Clip, ...]
    duration: float
    sampling_rate: int
    channels: int
    narrow_band: bool
    truncated: bool
    unread_bytes: int
    taken_channel: int | None = None

    @property
    def seconds(self) -> float:
        """Audio to score, over all clips."""
        return sum(clip.duration for clip in self.clips)


@dataclass(frozen=True, slots=True)
class Utterance:
    """An interval of speech, cut out of one channel.

    Attributes:
        start: seconds at which speech begins, from the beginning of the file or stream.
        end: seconds at which it ends.
        samples: float32 (time,), contiguous and not a view: the speech with some context before and after it.
    """

    start: float
    end: float
    samples: Floats


@dataclass(frozen=True, slots=True)
class ChannelUtterance:
    """An utterance, and the index of its channel; 0 for a mix."""

    channel: int
    utterance: Utterance
    taken_channel: int | None = None
    """In a stream: the channel that was cut because the mean of all channels cancels out."""


@dataclass(frozen=True, slots=True)
class Span:
    """A time interval in seconds from the beginning of the clip."""

    start: float
    end: float


@dataclass(frozen=True, slots=True)
class ClipOutput:
    """The output of a backend for one clip.

    Attributes:
        logits: float32 (frame, label), the output of the classification head for every frame.
        embedding: float32 (width,), the mean over frames.
        frame_embeddings: float32 (frame, width), or None if they were not requested.
        speech: the interval above the energy threshold, with margins; None for a silent clip.
        scored: the interval that was scored; frame i begins at `scored.start + i * 0.02`.
    """

    logits: Floats
    embedding: Floats
    frame_embeddings: Floats | None
    speech: Span | None
    scored: Span


@dataclass(frozen=True, slots=True)
class BatchOutput:
    """The output of a backend for a batch, in the order of its clips, with the seconds of both stages.

    `padding_ratio` is the share of the batch's frames that were padding, 0 where none were added.
    """

    clips: tuple[ClipOutput, ...]
    preprocess_seconds: float
    inference_seconds: float
    padding_ratio: float = 0.0

    @property
    def seconds(self) -> float:
        """Of both stages."""
        return self.preprocess_seconds + self.inference_seconds


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds that one request spent in each stage, in request order; preprocess and inference are those of its batch.

    These fields are the only list of the stages: logs, metrics and the `Server-Timing` header take their names and
    their order from here.
    """

    decode: float = 0.0
    queue: float = 0.0
    preprocess: float = 0.0
    inference: float = 0.0

    def __add__(self, other: Timings) -> Timings:
        """The sum for each stage."""
        return Timings(*map(sum, zip(self.by_stage().values(), other.by_stage().values(), strict=True)))

    @classmethod
    def longest(cls, timings: Iterable[Timings]) -> Self:
        """The maximum for each stage; zeros if there are no timings."""
        every = [each.by_stage() for each in timings]
        return cls(*(max((each[stage] for each in every), default=0.0) for stage in cls.__slots__))

    def by_stage(self) -> dict[str, float]:
        """The seconds by the name of the stage, in request order."""
        return {stage: getattr(self, stage) for stage in self.__slots__}  # `asdict` takes ten times as long


@dataclass(frozen=True, slots=True)
class Label:
    """The names of one emotion: in English, in Chinese, and as in the token list of the model."""

    en: str
    zh: str
    native: str


@dataclass(frozen=True, slots=True)
class Int8Error:
    """How far a model's answers in INT8 are from those in FP32, over bundled recordings.

    Attributes:
        score_difference: the largest difference of a score.
        equal_labels: the share of clips with the same label, 0 to 1.
        clips: how many were compared.
    """

    score_difference: float
    equal_labels: float
    clips: int

    @property
    def is_large(self) -> bool:
        """Whether users should choose FP32 instead: scores differ by more than 0.02, or more than 1 % of labels do."""
        return self.score_difference > 0.02 or self.equal_labels < 0.99

    def __str__(self) -> str:
        return (
            f"scores differ from FP32 by up to {self.score_difference:.4f}, "
            f"{self.equal_labels:.0%} of {self.clips} labels are the same"
        )


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """The loaded model: its identity, where and how it runs, and its labels in the order of the logits.

    `demonstration` is true for the embedded model, which is not accurate enough for real use.
    `masked` contains the indices of labels that the model never answers (`unuse…`).
    `int8_error` is known where the model runs in INT8.
    """

    id: str
    revision: str
    backend: str
    device: str
    dtype: str
    labels: tuple[Label, ...]
    masked: frozenset[int]
    embedding_size: int
    demonstration: bool = False
    int8_error: Int8Error | None = None


@dataclass(frozen=True, slots=True)
class FrameScores:
    """Scores over time: row i of `scores` (frame, label) covers `start + i * hop` up to `+ window` seconds."""

    start: float
    hop: float
    window: float
    scores: Floats


@dataclass(frozen=True, slots=True)
class Recognition:
    """The answer for one clip. Scores are in the order of `labels`, sum to one, and times are in seconds.

    Attributes:
        labels: the requested labels, or all that the model can answer.
        scores: float32 (label,).
        embedding: float32 (width,), (frame, width), or None if it was not requested.
        frames: scores over time, or None if they were not requested.
        speech: as in `ClipOutput`.
    """

    labels: tuple[Label, ...]
    scores: Floats
    embedding: Floats | None
    frames: FrameScores | None
    speech: Span | None

    @property
    def best(self) -> int:
        """Index of the highest score."""
        return int(np.argmax(self.scores))

    @property
    def label(self) -> Label:
        """The label with the highest score."""
        return self.labels[self.best]
