"""The JSON of options and answers; a key that was not requested is absent.

The server has types of its own, which hold numpy arrays and generate the OpenAPI document; the tests compare both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NotRequired, TypeAlias

from typing_extensions import TypedDict  # pydantic rejects typing.TypedDict before Python 3.12


class Options(TypedDict, total=False):
    """The options of a recognition, as in the table of docs/api.md; None means absent."""

    granularity: Literal["utterance", "frame", "segment"] | None
    embedding: Literal["none", "utterance", "frame"] | None
    encoding: Literal["float", "base64"] | None
    labels: Sequence[str] | str | None
    label_language: Literal["en", "zh", "native"] | None
    channels: Literal["mix", "split"] | int | None
    trim: bool | None
    window: float | None
    hop: float | None
    start: float | None
    end: float | None


class FieldProblem(TypedDict):
    """Why one option is invalid."""

    field: str
    message: str
    kind: str


class ProblemDocument(TypedDict):
    """RFC 9457 problem document with a stable `code`."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    errors: list[FieldProblem]


class ModelSummary(TypedDict):
    """The model that computed the answer; `demonstration` is true for the embedded one."""

    id: str
    revision: str
    backend: str
    device: str
    dtype: str
    demonstration: bool


class LabelNames(TypedDict):
    """The three names of one emotion: English, Chinese and the checkpoint's own."""

    en: str
    zh: str
    native: str


class Int8Difference(TypedDict):
    """How far answers in INT8 are from those in FP32, as measured on `clips` recordings."""

    score_difference: float
    equal_labels: float
    clips: int


class ModelDetails(ModelSummary):
    """A model that the service has loaded; `labels` are in the order of scores. `int8_error` only in INT8."""

    labels: list[LabelNames]
    embedding_size: int
    int8_error: NotRequired[Int8Difference]


class TimeRange(TypedDict):
    """A part of the file, in seconds."""

    start: float
    end: float


class Audio(TypedDict):
    """The decoded file: duration in seconds, sampling rate in Hz, and the range with speech (null if there is none).

    `truncated` says whether the file ends before its declared end; `unread_bytes` behind the audio were not decoded.
    `taken_channel` is present if the mean of all channels cancels out: the loudest channel, which was taken instead.
    """

    duration: float
    sampling_rate: int
    channels: int
    speech: NotRequired[TimeRange | None]
    speech_seconds: NotRequired[float]
    narrow_band: NotRequired[bool]
    truncated: NotRequired[bool]
    unread_bytes: NotRequired[int]
    taken_channel: NotRequired[int]


class LabelScore(TypedDict):
    """One emotion and its score, from 0 to 1."""

    label: str
    score: float


class EncodedArray(TypedDict):
    """An array as base64 of little-endian float32, row by row."""

    dtype: Literal["float32"]
    shape: list[int]
    data: str


Embedding: TypeAlias = list[float] | list[list[float]] | EncodedArray


class Frames(TypedDict):
    """Scores over time: row i covers `window` seconds of the file from `start + i * hop` on."""

    start: float
    hop: float
    window: float
    labels: list[str]
    scores: list[list[float]]


class Segment(TypedDict):
    """One utterance of a file, with granularity=segment; `channel` is present if the channels were split."""

    start: float
    end: float
    channel: NotRequired[int]
    label: str
    score: float
    scores: list[LabelScore]
    embedding: NotRequired[Embedding]


class _Result(TypedDict):
    """Label and score are null if granularity=segment found no speech."""

    label: NotRequired[str | None]
    score: NotRequired[float | None]
    scores: NotRequired[list[LabelScore]]
    embedding: NotRequired[Embedding]
    frames: NotRequired[Frames]
    segments: NotRequired[list[Segment]]


class ChannelResult(_Result):
    """The result for one channel, counted from 0."""

    channel: int
    speech: NotRequired[TimeRange | None]
    speech_seconds: NotRequired[float]


class FileResult(_Result):
    """The result for one file; if the channels were split, `channels` has one result for each."""

    audio: Audio
    channels: NotRequired[list[ChannelResult]]


class Answer(FileResult):
    """The answer for one file; `id` is the request ID."""

    id: str
    model: ModelSummary


class BatchItem(TypedDict):
    """One file of a batch, with a result or a problem."""

    index: int
    filename: str
    result: NotRequired[FileResult]
    problem: NotRequired[ProblemDocument]


class BatchAnswer(TypedDict):
    """The answer for several files: one item for each, in the same order."""

    id: str
    model: ModelSummary
    items: list[BatchItem]


class StartedAudio(TypedDict):
    """What is known about a file before all of it has been decoded."""

    sampling_rate: int
    channels: int


class StartEvent(TypedDict):
    """The first event of a file."""

    type: Literal["start"]
    id: str
    model: ModelSummary
    audio: StartedAudio


class SegmentEvent(Segment):
    """One utterance, sent as soon as it is recognised."""

    type: Literal["segment"]


class StageSeconds(TypedDict):
    """Seconds that the server spent in each stage, summed over all segments; stages overlap in time."""

    decode: float
    queue: float
    preprocess: float
    inference: float


class ResultEvent(FileResult):
    """The last event: the result for the whole file, without its segments."""

    type: Literal["result"]
    timings: StageSeconds


Event: TypeAlias = StartEvent | SegmentEvent | ResultEvent
