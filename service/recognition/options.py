"""The options of a recognition: form fields, or query parameters of the same names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any, Literal

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


def _option(default: Any, parse: Callable[[str], Any], schema: Mapping[str, Any], description: str) -> Any:
    """An option: its default, the function that reads its text, its JSON schema, and what it means."""
    described = {**schema, "description": description} | ({} if default is None else {"default": default})
    return field(default=default, metadata={"parse": parse, "schema": dict(sorted(described.items()))})


def _choice(*allowed: str) -> tuple[Callable[[str], str], dict[str, Any]]:
    return partial(_one_of, allowed), {"type": "string", "enum": list(allowed)}


def _one_of(allowed: tuple[str, ...], value: str) -> str:
    if value not in allowed:
        raise ValueError(f"must be one of {', '.join(allowed)}")
    return value


def _number(value: str) -> float:
    # Stricter than float(), which also accepts spaces, underscores, infinities and digits of other scripts.
    if _DECIMAL.fullmatch(value) is None or abs(float(value)) > _MAX_SECONDS:
        raise ValueError("must be a number of seconds")
    return float(value)


def _at_least_zero(value: str) -> float:
    if (number := _number(value)) < 0:
        raise ValueError("must be zero or more seconds")
    return number


def _positive(value: str) -> float:
    if (number := _number(value)) <= 0:
        raise ValueError("must be more than zero seconds")
    return number


def _frames(value: str) -> float:
    if (number := _number(value)) < _FRAME:
        raise ValueError(f"must be at least {_FRAME} seconds, one frame")
    return number


def _true_or_false(value: str) -> bool:
    if value not in ("true", "false"):
        raise ValueError("must be true or false")
    return value == "true"


def _channels(value: str) -> str | int:
    if value in ("mix", "split"):
        return value
    if value.isascii() and value.isdecimal() and len(value) <= 4 and int(value) <= MAX_CHANNEL:
        return int(value)
    raise ValueError("must be mix, split, or the index of one channel, counted from 0")


def _labels(value: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in value.split(","))
    if not all(names) or len(names) > _MAX_LABELS:
        raise ValueError("must be names of labels, separated by commas")
    return names


_AT_LEAST_ZERO = {"type": "number", "minimum": 0, "maximum": _MAX_SECONDS}
_POSITIVE = {"type": "number", "exclusiveMinimum": 0, "maximum": _MAX_SECONDS}
_FRAMES = {"type": "number", "minimum": _FRAME, "maximum": _MAX_SECONDS}


@dataclass(frozen=True, slots=True)
class Options:
    """The options of a request, as `parse_options` reads them from the text of form fields or query parameters.

    They need no pydantic, so that the command `recognize` starts without it.
    """

    granularity: Granularity = _option(
        "utterance",
        *_choice("utterance", "frame", "segment"),
        "`frame` adds scores over time; `segment` cuts long recordings into utterances and answers each",
    )
    embedding: EmbeddingChoice = _option(
        "none",
        *_choice("none", "utterance", "frame"),
        "Which embeddings the answer holds: none, their mean, or one for each frame",
    )
    encoding: Encoding = _option(
        "float",
        *_choice("float", "base64"),
        "Embeddings as JSON numbers, or as base64 of little-endian float32 with their shape",
    )
    labels: tuple[str, ...] | None = _option(
        None,
        _labels,
        {"type": "string", "minLength": 1},
        "Only these labels, renormalised; separated by commas, or the field repeated",
    )
    label_language: LabelLanguage = _option(
        "en",
        *_choice("en", "zh", "native"),
        "Language of the labels in the answer; `native` is as the model's token list has them",
    )
    channels: Literal["mix", "split"] | int = _option(
        "mix",
        _channels,
        {"type": "string", "pattern": r"^(mix|split|[0-9]{1,3})$"},
        "The mean of all channels, one result for each, or the one with this index",
    )
    trim: bool = _option(True, _true_or_false, {"type": "boolean"}, "Score only what is loud enough to be speech")
    window: float | None = _option(
        None,
        _frames,
        _FRAMES,
        "Seconds over which frame scores are pooled, by default `hop`; only with granularity=frame",
    )
    hop: float | None = _option(
        None,
        _frames,
        _FRAMES,
        "Seconds from one window to the next, by default `window`; only with granularity=frame",
    )
    start: float | None = _option(None, _at_least_zero, _AT_LEAST_ZERO, "Seconds into the file at which to begin")
    end: float | None = _option(None, _positive, _POSITIVE, "Seconds into the file at which to stop")
    timeout: float | None = _option(
        None,
        _positive,
        _POSITIVE,
        "Seconds in which the answer must be there; may only shorten the service's own limit",
    )

    @property
    def over_time(self) -> bool:
        """Whether the answer has scores or embeddings for each frame, and so may be large."""
        return self.granularity == "frame" or self.embedding == "frame"

    def chosen(self) -> dict[str, Any]:
        """The options that differ from their defaults, by name."""
        values = ((option.name, getattr(self, option.name), option.default) for option in fields(self))
        return {name: value for name, value, default in values if value != default}


OPTIONS = {option.name: option for option in fields(Options)}


def option_schemas() -> dict[str, dict[str, Any]]:
    """The JSON schema of every option, with its description."""
    return {name: dict(option.metadata["schema"]) for name, option in OPTIONS.items()}


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
    values: dict[str, Any] = {}
    for name, text in {**from_query, **from_form}.items():
        if name not in OPTIONS:
            errors.append(unknown_field(name))
            continue
        try:
            values[name] = OPTIONS[name].metadata["parse"](text)
        except ValueError as error:
            errors.append(FieldError(name, str(error), "invalid"))
    options = Options(**values)
    if not any(error.kind in ("invalid", "unknown") for error in errors):
        errors += _conflicts(options)
    if errors:
        raise invalid_options(*sorted(errors, key=lambda error: error.field))
    return options


def _conflicts(options: Options) -> Iterator[FieldError]:
    """The first option that does not fit the others, if any."""
    if options.granularity != "frame":
        for name in ("window", "hop"):
            if getattr(options, name) is not None:
                yield FieldError(name, "is only of use with granularity=frame", "conflict")
                return
    if options.granularity == "segment" and options.embedding == "frame":
        yield FieldError("embedding", "cannot be frame with granularity=segment", "conflict")
    elif options.end is not None and options.end <= (options.start or 0.0):
        yield FieldError("end", "must be after start", "conflict")


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


def invalid_options(*errors: FieldError) -> InvalidOptions:
    """The exception for `errors`, whose text has the first five."""
    return InvalidOptions("; ".join(f"{error.field} {error.message}" for error in errors[:5]) + ".", errors)


def unknown_field(name: str, known: Iterable[str] = OPTIONS) -> FieldError:
    """The error for a field that does not exist, with the most similar one that does."""
    from difflib import get_close_matches

    close = get_close_matches(name, list(known), n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    return FieldError(_shown(name), f"is not an option{hint}", "unknown")


def _shown(name: str) -> str:
    """A field name of a client, shortened for the error."""
    return name if len(name) <= 64 else name[:63] + "…"
