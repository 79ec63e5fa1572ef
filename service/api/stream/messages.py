"""What goes over a stream: the messages of the client as pydantic models, those of the server as typed dictionaries."""

from __future__ import annotations

from typing import Annotated, Literal, NotRequired

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from service.api.schemas import LabelScore, ModelSummary, Numbers, Overall, Score, Segment
from service.errors import FieldError, InvalidMessage, InvalidOptions
from service.recognition.options import LabelLanguage, Options, invalid_options, unknown_field
from service.results import MIN_SAMPLES, SAMPLING_RATE

MAX_TEXT = 16 * 1024
"""Characters that a text message may have."""

_MIN_RATE = 1_000
_MAX_RATE = 48_000
_MAX_CHANNELS = 8
_MAX_LABELS = 64
_MAX_ERRORS = 20
_MIN_SECONDS = 0.1
_HOP = 1.0
_MAX_SECONDS = 30.0
_MAX_WINDOW_SAMPLES = 2 * 48_000 * 30
"""Samples over all channels that a window may have, which bounds the memory of a stream: 30 s of stereo at 48 kHz."""

_Seconds = Annotated[float, Field(ge=_MIN_SECONDS, le=_MAX_SECONDS, allow_inf_nan=False)]

_MUST_BE = {
    "sampling_rate": f"must be a whole number of Hz, {_MIN_RATE} to {_MAX_RATE}",
    "encoding": "must be one of s16le, f32le",
    "channels": f"must be a whole number, 1 to {_MAX_CHANNELS}",
    "select": "must be mix, split, or the index of one channel, counted from 0",
    "window": f"must be seconds, {_MIN_SECONDS:g} to {_MAX_SECONDS:g}",
    "hop": f"must be seconds, {_MIN_SECONDS:g} to {_MAX_SECONDS:g}",
    "trim": "must be true or false",
    "labels": f"must be a list of 1 to {_MAX_LABELS} names",
    "label_language": "must be one of en, zh, native",
    "embedding": "must be one of none, utterance",
    "late": "must be one of skip, wait",
}


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Start(_Message):
    """How the audio comes, and what is wanted of it.

    `channels` are interleaved, and `select` says which of them count, as the option `channels` of a request does.
    """

    type: Literal["start"]
    sampling_rate: Annotated[int, Field(ge=_MIN_RATE, le=_MAX_RATE)]
    encoding: Literal["s16le", "f32le"]
    channels: Annotated[int, Field(ge=1, le=_MAX_CHANNELS)] = 1
    select: Literal["mix", "split"] | Annotated[int, Field(ge=0, lt=_MAX_CHANNELS)] = "mix"
    window: _Seconds = 3.0
    hop: _Seconds | None = None
    trim: bool = False
    labels: Annotated[list[str], Field(min_length=1, max_length=_MAX_LABELS)] | None = None
    label_language: LabelLanguage = "en"
    embedding: Literal["none", "utterance"] = "none"
    late: Literal["skip", "wait"] = "skip"

    @property
    def kept_channels(self) -> int:
        """Channels that are scored: the mean of all, or one, is one."""
        return self.channels if self.select == "split" else 1

    @property
    def sample_bytes(self) -> int:
        """Bytes of one sample of one channel."""
        return 2 if self.encoding == "s16le" else 4

    @property
    def window_samples(self) -> int:
        """Samples of a window, in one channel."""
        return round(self.window * self.sampling_rate)

    @property
    def hop_samples(self) -> int:
        """Samples from one window to the next."""
        return round(self.step * self.sampling_rate)

    @property
    def step(self) -> float:
        """Seconds from one window to the next: a second, if nothing else was said and windows are no shorter."""
        return min(_HOP, self.window) if self.hop is None else self.hop

    @property
    def shortest_samples(self) -> int:
        """Samples that make the first frame of the model, rounded up."""
        return -(-MIN_SAMPLES * self.sampling_rate // SAMPLING_RATE)

    def options(self) -> Options:
        """The same wishes as the options of a request."""
        return Options.model_construct(embedding=self.embedding, label_language=self.label_language)


class End(_Message):
    """Nothing more comes; the rest of the answers and the result are awaited."""

    type: Literal["end"]


_MESSAGES: TypeAdapter[Start | End] = TypeAdapter(Annotated[Start | End, Field(discriminator="type")])


class ReadyEvent(TypedDict):
    """The stream may begin."""

    type: Literal["ready"]
    id: str
    model: ModelSummary
    window: float
    hop: float


class WindowEvent(Segment):
    """The scores of one window; `skipped` windows were left out before it."""

    type: Literal["window"]
    skipped: int


class UtteranceEvent(Segment):
    """The scores of what was said until somebody paused."""

    type: Literal["utterance"]


class ChannelOverall(Overall):
    """The mean of the utterances of one channel."""

    channel: int
    speech_seconds: float


class ResultEvent(TypedDict):
    """The mean of all utterances, weighted by how long they last: with `select=split` by channel."""

    type: Literal["result"]
    duration: float
    speech_seconds: NotRequired[float]
    label: NotRequired[str | None]
    score: NotRequired[Score | None]
    scores: NotRequired[list[LabelScore]]
    embedding: NotRequired[Numbers]
    channels: NotRequired[list[ChannelOverall]]


def parse_message(text: str) -> Start | End:
    """Read one text message of the client.

    Raises:
        InvalidMessage: if it is no JSON object of a type that clients send.
        InvalidOptions: naming every member of it that is unknown, missing or has a bad value.
    """
    try:
        message = _MESSAGES.validate_json(text)
    except ValidationError as exc:
        raise _refusal(exc) from None
    if isinstance(message, Start) and (errors := _misfits(message)):
        raise invalid_options(*errors)
    return message


def _refusal(error: ValidationError) -> InvalidMessage | InvalidOptions:
    fields: dict[str, FieldError] = {}
    for each in error.errors(include_url=False, include_context=False, include_input=False):
        if len(each["loc"]) < 2:  # not even a message; otherwise the type of message comes first
            return InvalidMessage('A text message is a JSON object whose type is "start" or "end".')
        kind, name = str(each["loc"][0]), str(each["loc"][1])
        if each["type"] == "extra_forbidden":
            fields[name] = unknown_field(name, (Start if kind == "start" else End).model_fields)
        elif each["type"] == "missing":
            fields[name] = FieldError(name, "is missing", "missing")
        else:
            fields[name] = FieldError(name, _MUST_BE[name], "invalid")
        if len(fields) == _MAX_ERRORS:
            break
    return invalid_options(*sorted(fields.values(), key=lambda field: field.field))


def _misfits(start: Start) -> list[FieldError]:
    """What is wrong with members that are right by themselves."""
    errors = []
    if isinstance(start.select, int) and start.select >= start.channels:
        errors.append(FieldError("select", f"there are {start.channels} channels, counted from 0", "out_of_range"))
    if start.step > start.window:
        errors.append(FieldError("hop", "must not be longer than window", "conflict"))
    kept = start.kept_channels
    if start.window_samples * kept > _MAX_WINDOW_SAMPLES:
        longest = _MAX_WINDOW_SAMPLES / (kept * start.sampling_rate)
        errors.append(FieldError("window", f"must be at most {longest:g} s for so many samples", "conflict"))
    return errors
