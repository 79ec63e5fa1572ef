"""The JSON documents of HTTP responses, as types; docstrings and descriptions are part of the OpenAPI document."""

from __future__ import annotations

from typing import Annotated, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from service.recognition.result_types import (
    FileResult,
    ModelDetails,
    ModelSummary,
    Segment,
    SegmentedResult,
    with_arrays,
)


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


@with_arrays
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


@with_arrays
class SegmentLine(Segment):
    """A line for each segment, in order of their ends."""

    type: Literal["segment"]


class StageSeconds(TypedDict):
    """Seconds spent in each stage, over all segments; they go on at the same time."""

    decode: float
    queue: float
    preprocess: float
    inference: float


@with_arrays
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


@with_arrays
class Answer(FileResult):
    """The answer of `POST /recognize`."""

    id: Annotated[str, Field(description="The request id, as in X-Request-ID")]
    model: ModelSummary


@with_arrays
class BatchItem(TypedDict):
    """One file of a batch: a result or a problem."""

    index: int
    filename: str
    result: NotRequired[FileResult]
    problem: NotRequired[Problem]


@with_arrays
class BatchAnswer(TypedDict):
    """The answer of `POST /recognize/batch`: one item for each file, in their order."""

    id: str
    model: ModelSummary
    items: list[BatchItem]


class ModelList(TypedDict):
    """The models that this service answers with."""

    models: list[ModelDetails]


class Status(TypedDict):
    """The answer of a probe."""

    status: str
