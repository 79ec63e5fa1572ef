"""The options of a recognition: form fields, or query parameters of the same names."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from service.errors import FieldError, InvalidOptions
from service.results import FRAME_HOP, SAMPLING_RATE, EmbeddingChoice, Granularity

LabelLanguage = Literal["en", "zh", "native"]
Encoding = Literal["float", "base64"]

MAX_CHANNEL = 1023
MAX_FIELDS = 64
"""Fields that a form, and parameters that a query may have; more than the options with some repeated labels."""

_FRAME = FRAME_HOP / SAMPLING_RATE
_MAX_LABELS = 64
_MAX_SECONDS = 1e9
_DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")


def _one_of(*allowed: str) -> BeforeValidator:
    def check(value: str) -> str:
        if value not in allowed:
            raise PydanticCustomError("invalid", "must be one of {allowed}", {"allowed": ", ".join(allowed)})
        return value

    return BeforeValidator(check)


def _number(value: str) -> float:
    # Stricter than float(), which also accepts spaces, underscores, infinities and digits of other scripts.
    if _DECIMAL.fullmatch(value) is None or abs(float(value)) > _MAX_SECONDS:
        raise PydanticCustomError("invalid", "must be a number of seconds")
    return float(value)


def _at_least_zero(value: str) -> float:
    if (number := _number(value)) < 0:
        raise PydanticCustomError("invalid", "must be zero or more seconds")
    return number


def _positive(value: str) -> float:
    if (number := _number(value)) <= 0:
        raise PydanticCustomError("invalid", "must be more than zero seconds")
    return number


def _frames(value: str) -> float:
    if (number := _number(value)) < _FRAME:
        raise PydanticCustomError("invalid", "must be at least {frame} seconds, one frame", {"frame": _FRAME})
    return number


def _true_or_false(value: str) -> bool:
    if value not in ("true", "false"):
        raise PydanticCustomError("invalid", "must be true or false")
    return value == "true"


def _channels(value: str) -> str | int:
    if value in ("mix", "split"):
        return value
    if value.isascii() and value.isdecimal() and len(value) <= 4 and int(value) <= MAX_CHANNEL:
        return int(value)
    raise PydanticCustomError("invalid", "must be mix, split, or the index of one channel, counted from 0")


def _labels(value: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in value.split(","))
    if not all(names) or len(names) > _MAX_LABELS:
        raise PydanticCustomError("invalid", "must be names of labels, separated by commas")
    return names


_SECONDS: dict[str, Any] = {"type": "number", "exclusiveMinimum": 0, "maximum": _MAX_SECONDS}
_FRAMES_SCHEMA: dict[str, Any] = {"type": "number", "minimum": _FRAME, "maximum": _MAX_SECONDS}


class Options(BaseModel):
    """The options of a request, validated from the text of form fields or query parameters."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    granularity: Annotated[Granularity, _one_of("utterance", "frame", "segment")] = Field(
        default="utterance",
        description="`frame` adds scores over time; `segment` cuts long recordings into utterances and answers each",
    )
    embedding: Annotated[EmbeddingChoice, _one_of("none", "utterance", "frame")] = Field(
        default="none", description="Which embeddings the answer holds: none, their mean, or one for each frame"
    )
    encoding: Annotated[Encoding, _one_of("float", "base64")] = Field(
        default="float",
        description="Embeddings as JSON numbers, or as base64 of little-endian float32 with their shape",
    )
    labels: Annotated[
        tuple[str, ...] | None,
        BeforeValidator(_labels),
        WithJsonSchema({"type": "string", "minLength": 1}),
    ] = Field(default=None, description="Only these labels, renormalised; separated by commas, or the field repeated")
    label_language: Annotated[LabelLanguage, _one_of("en", "zh", "native")] = Field(
        default="en", description="Language of the labels in the answer; `native` is as the model's token list has them"
    )
    channels: Annotated[
        Literal["mix", "split"] | int,
        BeforeValidator(_channels),
        WithJsonSchema({"type": "string", "pattern": r"^(mix|split|[0-9]{1,3})$"}),
    ] = Field(default="mix", description="The mean of all channels, one result for each, or the one with this index")
    trim: Annotated[bool, BeforeValidator(_true_or_false)] = Field(
        default=True, description="Score only what is loud enough to be speech"
    )
    window: Annotated[float | None, BeforeValidator(_frames), WithJsonSchema(_FRAMES_SCHEMA)] = Field(
        default=None,
        description="Seconds over which frame scores are pooled, by default `hop`; only with granularity=frame",
    )
    hop: Annotated[float | None, BeforeValidator(_frames), WithJsonSchema(_FRAMES_SCHEMA)] = Field(
        default=None,
        description="Seconds from one window to the next, by default `window`; only with granularity=frame",
    )
    start: Annotated[
        float | None,
        BeforeValidator(_at_least_zero),
        WithJsonSchema({"type": "number", "minimum": 0, "maximum": _MAX_SECONDS}),
    ] = Field(default=None, description="Seconds into the file at which to begin")
    end: Annotated[float | None, BeforeValidator(_positive), WithJsonSchema(_SECONDS)] = Field(
        default=None, description="Seconds into the file at which to stop"
    )
    timeout: Annotated[float | None, BeforeValidator(_positive), WithJsonSchema(_SECONDS)] = Field(
        default=None, description="Seconds in which the answer must be there; may only shorten the service's own limit"
    )

    @property
    def over_time(self) -> bool:
        """Whether the answer has scores or embeddings for each frame, and so may be large."""
        return self.granularity == "frame" or self.embedding == "frame"

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.granularity != "frame":
            for name in ("window", "hop"):
                if getattr(self, name) is not None:
                    raise PydanticCustomError(name, "is only of use with granularity=frame")
        if self.granularity == "segment" and self.embedding == "frame":
            raise PydanticCustomError("embedding", "cannot be frame with granularity=segment")
        if self.end is not None and self.end <= (self.start or 0.0):
            raise PydanticCustomError("end", "must be after start")
        return self


def parse_options(query: Iterable[tuple[str, str]], form: Iterable[tuple[str, str]] = ()) -> Options:
    """Validate the options of one request.

    Args:
        query: query parameters in their order.
        form: text fields of the form in their order.

    Raises:
        InvalidOptions: if options are unknown, repeated, given twice with different values, or invalid, all of which
            are named; or if there are too many.
    """
    query = list(query)
    if len(query) > MAX_FIELDS:  # suggesting names for thousands would block the event loop
        raise InvalidOptions(f"The query has more than {MAX_FIELDS} parameters.")
    errors: list[FieldError] = []
    from_query = _collect(query, errors)
    from_form = _collect(form, errors)
    errors += [
        FieldError(name, "is in the query and in the form, with different values", "conflict")
        for name in from_query.keys() & from_form.keys()
        if from_query[name] != from_form[name]
    ]
    try:
        options = Options.model_validate({**from_query, **from_form})
    except ValidationError as exc:
        errors += [_field_error(error["loc"], error["type"], error["msg"]) for error in exc.errors()]
    if errors:
        raise invalid_options(*sorted(errors, key=lambda error: error.field))
    return options


def _collect(pairs: Iterable[tuple[str, str]], errors: list[FieldError]) -> dict[str, str]:
    values: dict[str, str] = {}
    for name, value in pairs:
        if name not in values:
            values[name] = value
        elif name == "labels":
            values[name] += "," + value
        else:
            errors.append(FieldError(_shown(name), "is given more than once", "repeated"))
    return values


def _field_error(loc: tuple[int | str, ...], kind: str, message: str) -> FieldError:
    if not loc:  # raised by `_fit_together`, whose error type is the name of the field
        return FieldError(kind, message, "conflict")
    name = str(loc[0])
    if kind == "extra_forbidden":
        return unknown_field(name)
    return FieldError(name, message, "invalid")


def invalid_options(*errors: FieldError) -> InvalidOptions:
    """The exception for `errors`, whose text has the first five."""
    return InvalidOptions("; ".join(f"{error.field} {error.message}" for error in errors[:5]) + ".", errors)


def unknown_field(name: str, known: Iterable[str] = Options.model_fields) -> FieldError:
    """The error for a field that does not exist, with the most similar one that does."""
    close = get_close_matches(name, list(known), n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    return FieldError(_shown(name), f"is not an option{hint}", "unknown")


def _shown(name: str) -> str:
    """A field name of a client, shortened for the error."""
    return name if len(name) <= 64 else name[:63] + "…"
