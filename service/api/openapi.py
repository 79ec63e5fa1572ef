"""The OpenAPI document: what FastAPI cannot see by itself, because the routes read their bodies themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from fastapi import FastAPI
from pydantic import TypeAdapter

from service.api.problems import PROBLEM_MEDIA_TYPE, documented
from service.api.request_body import FORM, RAW
from service.api.responses import NDJSON
from service.api.schemas import Line, Problem
from service.errors import (
    AudioEmpty,
    AudioNotFinite,
    AudioTooLong,
    AudioTooShort,
    AudioTruncated,
    BodyTooLarge,
    DeadlineExceeded,
    Draining,
    InferenceFailed,
    InvalidOptions,
    KeyInvalid,
    KeyMissing,
    MalformedBody,
    ModelLoading,
    NotDecodable,
    QueueFull,
    RateLimited,
    ServiceError,
    StorageFull,
    UnsupportedMediaType,
    UploadTimeout,
    WorkerDead,
)
from service.recognition.options import Options

_FILE: dict[str, Any] = {"type": "string", "format": "binary"}

REQUEST_ERRORS: tuple[type[ServiceError], ...] = (
    MalformedBody,
    UploadTimeout,
    BodyTooLarge,
    UnsupportedMediaType,
    InvalidOptions,
    QueueFull,
    ModelLoading,
    Draining,
    StorageFull,
    WorkerDead,
    DeadlineExceeded,
    ServiceError,
)
"""What can be wrong with any recognition as a whole."""

AUDIO_ERRORS: tuple[type[ServiceError], ...] = (
    AudioTooLong,
    NotDecodable,
    AudioEmpty,
    AudioTooShort,
    AudioTruncated,
    AudioNotFinite,
    InferenceFailed,
)
"""What can be wrong with one file."""


_LINE = "Line"

LINES: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {
            NDJSON: {
                "schema": {
                    "$ref": f"#/components/schemas/{_LINE}",
                    "description": "One of these on each line; with granularity=segment, where `Accept` says so",
                }
            }
        }
    }
}
"""The other form of an answer."""

SECURITY_SCHEMES: dict[str, Any] = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key as `Authorization: Bearer KEY`"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "An API key as `X-API-Key: KEY`"},
}


@dataclass(frozen=True, slots=True)
class Protection:
    """What `service.api.middleware.access` asks of callers: a key, a rate, and which paths are free of both."""

    public: frozenset[str] = frozenset()
    keys: bool = False
    rate: bool = False


class DescribedApp(FastAPI):
    """FastAPI whose document has what FastAPI does not see: the schema of problems, and what middleware asks for."""

    protection = Protection()

    def openapi(self) -> dict[str, Any]:
        """Make the document, once."""
        if self.openapi_schema is None:
            document = super().openapi()
            kinds: dict[str, Any] = {"Problem": Problem, _LINE: Line}
            for name, kind in kinds.items():
                schema = TypeAdapter(kind).json_schema(ref_template="#/components/schemas/{model}")
                for part, described in (*schema.pop("$defs").items(), (name, schema)):
                    document["components"]["schemas"].setdefault(part, described)
            _describe_protection(document, self.protection)
        return super().openapi()


def _describe_protection(document: dict[str, Any], protection: Protection) -> None:
    refusals: list[type[ServiceError]] = []
    if protection.keys:
        document["components"]["securitySchemes"] = SECURITY_SCHEMES
        document["security"] = [{name: []} for name in SECURITY_SCHEMES]
        refusals += [KeyMissing, KeyInvalid]
    if protection.rate:
        refusals.append(RateLimited)
    for path, operations in document["paths"].items():
        for operation in operations.values():
            if path not in protection.public:
                _add_responses(operation["responses"], documented(*refusals))
            elif protection.keys:
                operation["security"] = []


def _add_responses(responses: dict[str, Any], more: dict[int | str, dict[str, Any]]) -> None:
    for status, response in more.items():
        known = responses.setdefault(str(status), response)
        if known is not response:
            known["content"][PROBLEM_MEDIA_TYPE]["examples"] |= response["content"][PROBLEM_MEDIA_TYPE]["examples"]
            known["description"] += f", {response['description']}"


def option_parameters(*, batch: bool = False) -> list[dict[str, Any]]:
    """The options as query parameters, of one file or of a `batch`."""
    return [
        {"name": name, "in": "query", "required": False, "description": schema["description"], "schema": schema}
        for name, schema in _options(batch).items()
    ]


def _form_body(files: dict[str, Any], required: Sequence[str], batch: bool) -> dict[str, Any]:
    """A form with `files`, of which one of `required` must be there, and the options as text fields."""
    return {
        FORM: {
            "schema": {
                "type": "object",
                "properties": {**files, **_options(batch)},
                "anyOf": [{"required": [name]} for name in required],
                "additionalProperties": False,
            }
        }
    }


def file_body(names: Sequence[str]) -> dict[str, Any]:
    """The request body of one file: a form in which it has one of `names`, or its bytes."""
    files = {name: {**_FILE, "description": "The audio, in any common format"} for name in names}
    return {
        "required": True,
        "content": {**_form_body(files, names, batch=False), **{media: {"schema": _FILE} for media in RAW}},
    }


def files_body(name: str, max_files: int) -> dict[str, Any]:
    """The request body of several files, all under `name`."""
    files = {"type": "array", "items": _FILE, "minItems": 1, "maxItems": max_files}
    return {"required": True, "content": _form_body({name: files}, [name], batch=True)}


@cache
def _options(batch: bool) -> dict[str, dict[str, Any]]:
    properties: dict[str, dict[str, Any]] = Options.model_json_schema()["properties"]
    # An absent option has no value, which JSON schema cannot say by a default of null.
    options = {
        name: {key: value for key, value in schema.items() if key != "title" and value is not None}
        for name, schema in properties.items()
    }
    if batch:
        options["granularity"] |= {"enum": ["utterance", "frame"], "description": "`frame` adds scores over time"}
    return options
