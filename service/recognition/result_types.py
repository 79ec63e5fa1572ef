"""The types of results, which `answers` builds and the OpenAPI document describes.

They are typed dictionaries, since keys that were not requested are absent rather than null, and large arrays are passed
to the JSON encoder unchanged.
"""

from __future__ import annotations

from typing import Annotated, Literal, NotRequired

import numpy as np
from pydantic import ConfigDict, Field, WithJsonSchema, with_config
from typing_extensions import TypedDict

from service.preprocess.bandwidth import EDGE
from service.recognition.json_encoding import Base64
from service.results import Floats

Numbers = Annotated[Floats, WithJsonSchema({"type": "array", "items": {"type": "number"}})]
Rows = Annotated[Floats, WithJsonSchema({"type": "array", "items": {"type": "array", "items": {"type": "number"}}})]
Score = Annotated[np.float32, WithJsonSchema({"type": "number", "minimum": 0, "maximum": 1})]
NarrowBand = Annotated[bool, Field(description=f"Nothing is above {EDGE / 1000} kHz, as on the telephone")]

with_arrays = with_config(ConfigDict(arbitrary_types_allowed=True))
"""For types with numpy arrays, which pydantic cannot validate; they are used for the OpenAPI document only."""

Truncated = Annotated[bool, Field(description="True if the file ends before its declared end; the rest is answered")]
UnreadBytes = Annotated[int, Field(description="Bytes behind the audio that were not decoded; only if there are any")]


class ModelSummary(TypedDict):
    """The model that answered."""

    id: str
    revision: str
    backend: str
    device: str
    dtype: str
    demonstration: Annotated[bool, Field(description="True for the embedded model, which shows the path only")]


TakenChannel = Annotated[
    int, Field(description="Only if the mean of all channels cancels out: the loudest channel, which was taken instead")
]


class Stretch(TypedDict):
    """A stretch of the uploaded file, in seconds."""

    start: float
    end: float


class Audio(TypedDict):
    """The upload as it was decoded."""

    duration: Annotated[float, Field(description="Seconds")]
    sampling_rate: Annotated[int, Field(description="Hz")]
    channels: int
    narrow_band: NarrowBand
    truncated: Truncated
    unread_bytes: NotRequired[UnreadBytes]
    taken_channel: NotRequired[TakenChannel]
    speech: NotRequired[
        Annotated[Stretch | None, Field(description="What is loud enough to be speech; null where the clip is silent")]
    ]


@with_arrays
class LabelScore(TypedDict):
    """One emotion."""

    label: str
    score: Score


@with_arrays
class EncodedArray(TypedDict):
    """An array as base64 of little-endian float32, row by row."""

    dtype: Literal["float32"]
    shape: Annotated[list[int], Field(description="[width] for one embedding, [frames, width] for frame embeddings")]
    data: Annotated[Base64, WithJsonSchema({"type": "string", "contentEncoding": "base64"})]


@with_arrays
class Frames(TypedDict):
    """Scores over time: row i covers `start + i * hop` up to `+ window` seconds of the uploaded file."""

    start: float
    hop: float
    window: float
    labels: Annotated[list[str], Field(description="What the columns of `scores` are")]
    scores: Rows


@with_arrays
class Result(TypedDict):
    """Scores for one waveform, with embedding and scores over time if they were requested."""

    label: Annotated[str, Field(description="The label with the highest score")]
    score: Score
    scores: Annotated[list[LabelScore], Field(description="In the model's order of labels, or as asked for; sum 1")]
    embedding: NotRequired[Numbers | Rows | EncodedArray]
    frames: NotRequired[Frames]


@with_arrays
class ChannelResult(Result):
    """The result for one channel, counted from 0."""

    channel: int
    speech: Stretch | None


@with_arrays
class FileResult(TypedDict):
    """The result for one file: of one waveform, or one for each channel under `channels`."""

    audio: Audio
    label: NotRequired[str]
    score: NotRequired[Score]
    scores: NotRequired[list[LabelScore]]
    embedding: NotRequired[Numbers | Rows | EncodedArray]
    frames: NotRequired[Frames]
    channels: NotRequired[Annotated[list[ChannelResult], Field(description="With channels=split")]]


@with_arrays
class Segment(TypedDict):
    """The result for one utterance, with its times in seconds of the uploaded file."""

    channel: NotRequired[Annotated[int, Field(description="With channels=split")]]
    start: float
    end: float
    label: str
    score: Score
    scores: list[LabelScore]
    embedding: NotRequired[Numbers | EncodedArray]


class SegmentedAudio(TypedDict):
    """The upload as it was decoded, piece by piece."""

    duration: Annotated[float, Field(description="Seconds")]
    sampling_rate: Annotated[int, Field(description="Hz")]
    channels: int
    narrow_band: NarrowBand
    truncated: Truncated
    unread_bytes: NotRequired[UnreadBytes]
    taken_channel: NotRequired[TakenChannel]
    speech_seconds: NotRequired[Annotated[float, Field(description="All segments together; without channels=split")]]


@with_arrays
class Overall(TypedDict):
    """The mean of all segments, weighted by their durations; null and empty if there is no speech."""

    label: str | None
    score: Score | None
    scores: list[LabelScore]
    embedding: NotRequired[Numbers | EncodedArray]


@with_arrays
class SegmentedChannel(Overall):
    """The result for one channel, counted from 0."""

    channel: int
    speech_seconds: float
    segments: NotRequired[Annotated[list[Segment], Field(description="In order of time; not in a `result` line")]]


@with_arrays
class SegmentedResult(TypedDict):
    """The result for one recording, or for each channel under `channels`."""

    audio: SegmentedAudio
    label: NotRequired[str | None]
    score: NotRequired[Score | None]
    scores: NotRequired[list[LabelScore]]
    embedding: NotRequired[Numbers | EncodedArray]
    segments: NotRequired[Annotated[list[Segment], Field(description="In order of time; not in a `result` line")]]
    channels: NotRequired[Annotated[list[SegmentedChannel], Field(description="With channels=split")]]


class LabelNames(TypedDict):
    """One emotion in its three spellings."""

    en: str
    zh: str
    native: str


class Int8Difference(TypedDict):
    """How far answers in INT8 are from those in FP32, measured on bundled recordings when the model was prepared."""

    score_difference: Annotated[float, Field(description="The largest difference of a score")]
    equal_labels: Annotated[float, Field(description="Share of the recordings with the same label, 0 to 1")]
    clips: Annotated[int, Field(description="How many recordings were compared")]


class ModelDetails(ModelSummary):
    """A model that this service answers with."""

    int8_error: NotRequired[Annotated[Int8Difference, Field(description="Only where the model runs in INT8")]]

    labels: Annotated[list[LabelNames], Field(description="In the order of scores, without those never answered")]
    embedding_size: int


class QueueAhead(TypedDict):
    """What waits for the model before a request's next clip."""

    clips: int
    audio_seconds: float
    wait: Annotated[float | None, Field(description="Seconds until it is done at the recent speed, once there is one")]


class SegmentProgress(TypedDict):
    """How far a request with granularity segment has come."""

    answered: Annotated[int, Field(description="Segments")]
    until: Annotated[float, Field(description="Seconds of the file at which the last of them ends")]


class RequestState(TypedDict):
    """Where a request is; `unknown` where it is not here (yet, or any more)."""

    state: Literal["receiving", "decoding", "queued", "running", "unknown"]
    ahead: NotRequired[Annotated[QueueAhead, Field(description="Only in the state `queued`")]]
    segments: NotRequired[Annotated[SegmentProgress, Field(description="Only with granularity=segment")]]
