"""The shapes of all answers. The builders return these types, and the OpenAPI document is made of them.

Typed dictionaries, because a key that was not asked for is absent rather than null, and because large arrays go to
the JSON encoder as they are.
"""

from __future__ import annotations

from typing import Annotated, Literal, NotRequired

import numpy as np
from pydantic import ConfigDict, Field, WithJsonSchema, with_config
from typing_extensions import TypedDict

from service.recognition.json_encoding import Base64
from service.results import Floats

Numbers = Annotated[Floats, WithJsonSchema({"type": "array", "items": {"type": "number"}})]
Rows = Annotated[Floats, WithJsonSchema({"type": "array", "items": {"type": "array", "items": {"type": "number"}}})]
Score = Annotated[np.float32, WithJsonSchema({"type": "number", "minimum": 0, "maximum": 1})]

# numpy arrays have no validator of their own; these types describe answers and never parse anything.
_described = with_config(ConfigDict(arbitrary_types_allowed=True))


class FieldProblem(TypedDict):
    """What is wrong with one option."""

    field: str
    message: str
    kind: Annotated[str, Field(description="Machine-readable, such as unknown, invalid or repeated")]


class Problem(TypedDict):
    """RFC 9457 problem document. `code` is stable; `title` and `detail` are for people."""

    type: Annotated[
        str, Field(description="A URI that identifies the kind of problem", json_schema_extra={"format": "uri"})
    ]
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    errors: Annotated[list[FieldProblem], Field(description="One entry for each bad option")]


class ModelSummary(TypedDict):
    """The model that answered."""

    id: str
    revision: str
    backend: str
    device: str
    dtype: str
    demonstration: Annotated[bool, Field(description="True for the embedded model, which shows the path only")]


class Stretch(TypedDict):
    """A stretch of the uploaded file, in seconds."""

    start: float
    end: float


class Audio(TypedDict):
    """The upload as it was decoded."""

    duration: Annotated[float, Field(description="Seconds")]
    sampling_rate: Annotated[int, Field(description="Hz")]
    channels: int
    narrow_band: Annotated[bool, Field(description="True where nothing is heard above 4.5 kHz, as after a telephone")]
    speech: NotRequired[
        Annotated[Stretch | None, Field(description="What is loud enough to be speech; null where the clip is silent")]
    ]


@_described
class LabelScore(TypedDict):
    """One emotion."""

    label: str
    score: Score


@_described
class EncodedArray(TypedDict):
    """An array as base64 of little-endian float32, row by row."""

    dtype: Literal["float32"]
    shape: Annotated[list[int], Field(description="[width] for one embedding, [frames, width] for frame embeddings")]
    data: Annotated[Base64, WithJsonSchema({"type": "string", "contentEncoding": "base64"})]


@_described
class Frames(TypedDict):
    """Scores over time: row i covers `start + i * hop` up to `+ window` seconds of the uploaded file."""

    start: float
    hop: float
    window: float
    labels: Annotated[list[str], Field(description="What the columns of `scores` are")]
    scores: Rows


@_described
class Result(TypedDict):
    """Scores for one waveform; only what was asked for is there."""

    label: Annotated[str, Field(description="The label with the highest score")]
    score: Score
    scores: Annotated[list[LabelScore], Field(description="In the model's order of labels, or as asked for; sum 1")]
    embedding: NotRequired[Numbers | Rows | EncodedArray]
    frames: NotRequired[Frames]


@_described
class ChannelResult(Result):
    """The result for one channel, counted from 0."""

    channel: int
    speech: Stretch | None


@_described
class FileResult(TypedDict):
    """The result for one file: of one waveform, or one for each channel under `channels`."""

    audio: Audio
    label: NotRequired[str]
    score: NotRequired[Score]
    scores: NotRequired[list[LabelScore]]
    embedding: NotRequired[Numbers | Rows | EncodedArray]
    frames: NotRequired[Frames]
    channels: NotRequired[Annotated[list[ChannelResult], Field(description="With channels=split")]]


@_described
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
    narrow_band: Annotated[bool, Field(description="Nothing is above 4 kHz, as on the telephone")]
    speech_seconds: NotRequired[Annotated[float, Field(description="All segments together; without channels=split")]]


@_described
class Overall(TypedDict):
    """The mean of all segments, weighted by how long they last; null and empty where there is no speech."""

    label: str | None
    score: Score | None
    scores: list[LabelScore]
    embedding: NotRequired[Numbers | EncodedArray]


@_described
class SegmentedChannel(Overall):
    """The result for one channel, counted from 0."""

    channel: int
    speech_seconds: float
    segments: NotRequired[Annotated[list[Segment], Field(description="In order of time; not in a `result` line")]]


@_described
class SegmentedResult(TypedDict):
    """What was found in one recording: over all, or for each channel under `channels`."""

    audio: SegmentedAudio
    label: NotRequired[str | None]
    score: NotRequired[Score | None]
    scores: NotRequired[list[LabelScore]]
    embedding: NotRequired[Numbers | EncodedArray]
    segments: NotRequired[Annotated[list[Segment], Field(description="In order of time; not in a `result` line")]]
    channels: NotRequired[Annotated[list[SegmentedChannel], Field(description="With channels=split")]]


@_described
class SegmentedAnswer(SegmentedResult):
    """The answer of `POST /recognize` with granularity=segment."""

    id: str
    model: ModelSummary


class OpenedAudio(TypedDict):
    """What is known of the upload before it is read."""

    sampling_rate: int
    channels: int


class StartLine(TypedDict):
    """The first line of a streamed answer."""

    type: Literal["start"]
    id: str
    model: ModelSummary
    audio: OpenedAudio


@_described
class SegmentLine(Segment):
    """A line for each segment, in order of their ends."""

    type: Literal["segment"]


class StageSeconds(TypedDict):
    """Seconds spent in each stage, over all segments; they go on at the same time."""

    decode: float
    queue: float
    preprocess: float
    inference: float


@_described
class ResultLine(SegmentedResult):
    """The last line of an answer that is complete; its segments have come before."""

    type: Literal["result"]
    timings: StageSeconds


class ProblemLine(TypedDict):
    """The last line of an answer that is not: a problem document, whose kind `code` tells."""

    type: Literal["problem"]
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    errors: list[FieldProblem]


Line = StartLine | SegmentLine | ResultLine | ProblemLine
"""One line of an answer of `POST /recognize` as application/x-ndjson."""


@_described
class Answer(FileResult):
    """The answer of `POST /recognize`."""

    id: Annotated[str, Field(description="The request id, as in X-Request-ID")]
    model: ModelSummary


@_described
class BatchItem(TypedDict):
    """One file of a batch: a result or a problem."""

    index: int
    filename: str
    result: NotRequired[FileResult]
    problem: NotRequired[Problem]


@_described
class BatchAnswer(TypedDict):
    """The answer of `POST /recognize/batch`: one item for each file, in their order."""

    id: str
    model: ModelSummary
    items: list[BatchItem]


class LabelNames(TypedDict):
    """One emotion in its three spellings."""

    en: str
    zh: str
    native: str


class ModelDetails(ModelSummary):
    """A model that this service answers with."""

    labels: Annotated[list[LabelNames], Field(description="In the order of scores, without those never answered")]
    embedding_size: int


class ModelList(TypedDict):
    """The models that this service answers with."""

    models: list[ModelDetails]


class Status(TypedDict):
    """The answer of a probe."""

    status: str


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
