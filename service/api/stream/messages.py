"""The messages of a stream: those of the client as pydantic models, those of the server as typed dictionaries."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from service.errors import FieldError, InvalidMessage, InvalidOptions
from service.recognition.live import options
from service.recognition.options import invalid_options, unknown_field
from service.recognition.result_types import ModelSummary

MAX_TEXT = 16 * 1024
"""Maximal characters of a text message."""

_MAX_ERRORS = 20
_MAX_WINDOW_SAMPLES = 2 * 48_000 * 30
"""Maximal samples of a window over all channels, 30 s of stereo at 48 kHz: bounds the memory of a stream."""

_MUST_BE = {
    "sampling_rate": f"must be a whole number of Hz, {options.MIN_RATE} to {options.MAX_RATE}",
    "encoding": "must be one of s16le, f32le",
    "channels": f"must be a whole number, 1 to {options.MAX_CHANNELS}",
    "select": "must be mix, split, or the index of one channel, counted from 0",
    "window": f"must be seconds, {options.MIN_SECONDS:g} to {options.MAX_SECONDS:g}",
    "hop": f"must be seconds, {options.MIN_SECONDS:g} to {options.MAX_SECONDS:g}",
    "trim": "must be true or false",
    "labels": f"must be a list of 1 to {options.MAX_LABELS} names",
    "label_language": "must be one of en, zh, native",
    "embedding": "must be one of none, utterance",
    "late": "must be one of skip, wait",
}


class Start(options.StreamOptions):
    """The first message of the client: the format of the audio, and the options."""

    type: Literal["start"]


class End(BaseModel):
    """The last message of the client, which now waits for the remaining events and the result."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    type: Literal["end"]


_MESSAGES: TypeAdapter[Start | End] = TypeAdapter(Annotated[Start | End, Field(discriminator="type")])


class ReadyEvent(TypedDict):
    """The first message of the server: the client may send audio."""

    type: Literal["ready"]
    id: str
    model: ModelSummary
    window: float
    hop: float


def parse_message(text: str) -> Start | End:
    """Parse one text message of the client.

    Raises:
        InvalidMessage: if it is not a JSON object of one of the types that clients send.
        InvalidOptions: naming every member that is unknown, missing or invalid.
    """
    try:
        message = _MESSAGES.validate_json(text)
    except ValidationError as exc:
        raise _refusal(exc) from None
    if isinstance(message, Start) and (errors := _conflicts(message)):
        raise invalid_options(*errors)
    return message


def _refusal(error: ValidationError) -> InvalidMessage | InvalidOptions:
    fields: dict[str, FieldError] = {}
    for each in error.errors(include_url=False, include_context=False, include_input=False):
        if len(each["loc"]) < 2:  # not a known message; otherwise the path begins with its type
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


def _conflicts(start: Start) -> list[FieldError]:
    """Errors of members that are valid by themselves, but not together."""
    errors = []
    if isinstance(start.select, int) and start.select >= start.channels:
        errors.append(FieldError("select", f"there are {start.channels} channels, counted from 0", "out_of_range"))
    if start.hop_seconds > start.window:
        errors.append(FieldError("hop", "must not be longer than window", "conflict"))
    channels = start.kept_channels
    if start.window_samples * channels > _MAX_WINDOW_SAMPLES:
        longest = _MAX_WINDOW_SAMPLES / (channels * start.sampling_rate)
        errors.append(FieldError("window", f"must be at most {longest:g} s for so many samples", "conflict"))
    return errors
