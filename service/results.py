"""The values that travel through the service.

    bytes ─decode─▶ Waveform ─select channels, cut─▶ Clip ─backend─▶ ClipOutput ─scores─▶ Recognition
    bytes ─read in blocks─▶ ChannelUtterance ─▶ Clip …

This module imports nothing of the project.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

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

    Full scale is [-1, 1]; float files may exceed it.
    """

    samples: Floats
    sampling_rate: int

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
    """One mono waveform for a backend, at the rate it came in: `samples` is float32 of shape (time,)."""

    samples: Floats
    sampling_rate: int
    trim: bool = True
    frame_embeddings: bool = False

    @property
    def duration(self) -> float:
        """Seconds."""
        return float(self.samples.size / self.sampling_rate)


@dataclass(frozen=True, slots=True)
class Utterance:
    """A stretch of speech, cut out of one channel.

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


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time in seconds from the beginning of the clip."""

    start: float
    end: float


@dataclass(frozen=True, slots=True)
class ClipOutput:
    """What a backend answers for one clip.

    Attributes:
        logits: float32 (frame, label), the head applied to every frame.
        embedding: float32 (width,), the mean over frames.
        frame_embeddings: float32 (frame, width), or None where they were not asked for.
        speech: what the energy threshold calls speech (margin included), None for a silent clip.
        scored: the stretch that was scored; frame i begins at `scored.start + i * 0.02`.
    """

    logits: Floats
    embedding: Floats
    frame_embeddings: Floats | None
    speech: Span | None
    scored: Span


@dataclass(frozen=True, slots=True)
class BatchOutput:
    """What a backend answers for a batch, in the order of its clips; the stages in seconds.

    `padding_ratio` is the share of the batch's frames that were padding, 0 where none were added.
    """

    clips: tuple[ClipOutput, ...]
    preprocess_seconds: float
    inference_seconds: float
    padding_ratio: float = 0.0


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds that one request spent in each stage; preprocess and inference are those of its batch."""

    decode: float = 0.0
    queue: float = 0.0
    preprocess: float = 0.0
    inference: float = 0.0


@dataclass(frozen=True, slots=True)
class Label:
    """One emotion in its three spellings: English, Chinese, and as the model's token list has it."""

    en: str
    zh: str
    native: str


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """The model that answers: identity, where and how it runs, and its labels in the order of the logits.

    `demonstration` is true for the embedded model, which shows the path and not the state of the art.
    `masked` holds the indices of labels that the model never answers (`unuse…`).
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
        labels: the labels asked for, or all that the model may answer.
        scores: float32 (label,).
        embedding: float32 (width,), (frame, width), or None where it was not asked for.
        frames: scores over time, or None where they were not asked for.
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
