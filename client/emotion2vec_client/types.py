"""The shapes of options and answers, as JSON has them; a key that was not asked for is absent.

The server's own are in `service.api.schemas`: those hold numpy arrays, and make the OpenAPI document. Tests hold both
against each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NotRequired, TypeAlias

from typing_extensions import TypedDict  # typing's own cannot be checked by pydantic before Python 3.12


class Options(TypedDict, total=False):
    """The options of a recognition, as in the table of docs/api.md; None is as good as absent."""

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
    """What is wrong with one option."""

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
    """The model that answered; `demonstration` is true for the embedded one."""

    id: str
    revision: str
    backend: str
    device: str
    dtype: str
    demonstration: bool


class LabelNames(TypedDict):
    """One emotion in its three spellings."""

    en: str
    zh: str
    native: str


class ModelDetails(ModelSummary):
    """A model that the service answers with; its labels in the order of scores."""

    labels: list[LabelNames]
    embedding_size: int


class Stretch(TypedDict):
    """A stretch of the file, in seconds."""

    start: float
    end: float


class Audio(TypedDict):
    """The file as it was decoded: seconds, Hz, and what of it is speech (null where nothing is)."""

    duration: float
    sampling_rate: int
    channels: int
    speech: NotRequired[Stretch | None]
    speech_seconds: NotRequired[float]
    narrow_band: NotRequired[bool]


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
    """Scores over time: row i covers `start + i * hop` up to `+ window` seconds of the file."""

    start: float
    hop: float
    window: float
    labels: list[str]
    scores: list[list[float]]


class Segment(TypedDict):
    """One utterance of a file, with granularity=segment; `channel` where the channels were split."""

    start: float
    end: float
    channel: NotRequired[int]
    label: str
    score: float
    scores: list[LabelScore]
    embedding: NotRequired[Embedding]


class _Result(TypedDict):
    """Label and score are null where granularity=segment found no speech."""

    label: NotRequired[str | None]
    score: NotRequired[float | None]
    scores: NotRequired[list[LabelScore]]
    embedding: NotRequired[Embedding]
    frames: NotRequired[Frames]
    segments: NotRequired[list[Segment]]


class ChannelResult(_Result):
    """The result for one channel, counted from 0."""

    channel: int
    speech: NotRequired[Stretch | None]
    speech_seconds: NotRequired[float]


class FileResult(_Result):
    """The result for one file: of one waveform, or one for each channel under `channels`."""

    audio: Audio
    channels: NotRequired[list[ChannelResult]]


class Answer(FileResult):
    """The answer for one file; `id` is that of the request."""

    id: str
    model: ModelSummary


class BatchItem(TypedDict):
    """One file of a batch: a result or a problem."""

    index: int
    filename: str
    result: NotRequired[FileResult]
    problem: NotRequired[ProblemDocument]


class BatchAnswer(TypedDict):
    """The answer for several files: one item for each, in their order."""

    id: str
    model: ModelSummary
    items: list[BatchItem]


class StartedAudio(TypedDict):
    """What is known of a file before all of it has been read."""

    sampling_rate: int
    channels: int


class StartEvent(TypedDict):
    """The first event of a file."""

    type: Literal["start"]
    id: str
    model: ModelSummary
    audio: StartedAudio


class SegmentEvent(Segment):
    """One utterance, as soon as it is known."""

    type: Literal["segment"]


class StageSeconds(TypedDict):
    """Seconds that the server spent in each stage, over all segments; they go on at the same time."""

    decode: float
    queue: float
    preprocess: float
    inference: float


class ResultEvent(FileResult):
    """The last event: the result over all of the file, without its segments."""

    type: Literal["result"]
    timings: StageSeconds


Event: TypeAlias = StartEvent | SegmentEvent | ResultEvent
