"""The parts of the OpenAPI document that FastAPI cannot derive: bodies, options, errors, keys and rate limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import Any

from fastapi import FastAPI
from pydantic import TypeAdapter

from service import errors
from service.api.middleware.access import Access
from service.api.middleware.hosts import UNCHECKED
from service.api.problems import PROBLEM_MEDIA_TYPE, documented
from service.api.request_body import FORM, RAW
from service.api.responses import NDJSON
from service.api.schemas import Line, Problem
from service.errors import ServiceError
from service.recognition.options import option_schemas

_FILE: dict[str, Any] = {"type": "string", "format": "binary"}

REQUEST_ERRORS: tuple[type[ServiceError], ...] = (
    errors.MalformedBody,
    errors.UploadTimeout,
    errors.BodyTooLarge,
    errors.UnsupportedMediaType,
    errors.UnsupportedContentEncoding,
    errors.InvalidOptions,
    errors.QueueFull,
    errors.CallerLimit,
    errors.ModelLoading,
    errors.Draining,
    errors.StorageFull,
    errors.StorageUnwritable,
    errors.WorkerDead,
    errors.DeadlineExceeded,
    ServiceError,
)
"""Errors of any recognition request as a whole."""

AUDIO_ERRORS: tuple[type[ServiceError], ...] = (
    errors.AudioTooLong,
    errors.NotDecodable,
    errors.AudioEmpty,
    errors.AudioTooShort,
    errors.AudioTruncated,
    errors.AudioNotFinite,
    errors.DecoderUnavailable,
    errors.InferenceFailed,
)
"""Errors of one file."""

LINES: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {
            NDJSON: {
                "schema": {
                    "$ref": "#/components/schemas/Line",
                    "description": "One of these on each line; with granularity=segment, where `Accept` says so",
                }
            }
        }
    }
}
"""The response of JSON lines."""

SECURITY_SCHEMES: dict[str, Any] = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key as `Authorization: Bearer KEY`"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "An API key as `X-API-Key: KEY`"},
}


class DescribedApp(FastAPI):
    """FastAPI with an OpenAPI document that includes the schemas of problems and lines, keys and rate limits.

    Attributes:
        access: what the operations of each path ask of callers.
        needs_key: whether keys are in force.
        limits_rate: whether a rate limit is in force.
        checks_host: whether all operations but those for probes are refused under other names.
    """

    access: Mapping[str, Access] = MappingProxyType({})
    needs_key = False
    limits_rate = False
    checks_host = False

    def openapi(self) -> dict[str, Any]:
        """The document, made at the first call."""
        if self.openapi_schema is None:
            document = super().openapi()
            kinds: dict[str, Any] = {"Problem": Problem, "Line": Line}
            for name, kind in kinds.items():
                schema = TypeAdapter(kind).json_schema(ref_template="#/components/schemas/{model}")
                for part, described in (*schema.pop("$defs").items(), (name, schema)):
                    document["components"]["schemas"].setdefault(part, described)
            self._describe_access(document)
        return super().openapi()

    def _describe_access(self, document: dict[str, Any]) -> None:
        refusals: dict[Access, list[type[ServiceError]]] = {access: [] for access in Access}
        if self.needs_key:
            document["components"]["securitySchemes"] = SECURITY_SCHEMES
            document["security"] = [{name: []} for name in SECURITY_SCHEMES]
            for access in (Access.KEY, Access.KEY_AND_RATE):
                refusals[access] += [errors.KeyMissing, errors.KeyInvalid]
        if self.limits_rate:
            refusals[Access.KEY_AND_RATE].append(errors.RateLimited)
        for path, operations in document["paths"].items():
            for operation in operations.values():
                if self.checks_host and path not in UNCHECKED:
                    _add_responses(operation["responses"], documented(errors.HostForbidden))
                access = self.access.get(path, Access.KEY_AND_RATE)
                _add_responses(operation["responses"], documented(*refusals[access]))
                if self.needs_key and access is Access.PUBLIC:
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
    """A form with `files`, of which one of `required` must be sent, and the options as text fields."""
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
    """The request body of one file: a form with the file under one of `names`, or the bytes of the file."""
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
    options = option_schemas()
    if batch:
        options["granularity"] |= {"enum": ["utterance", "frame"], "description": "`frame` adds scores over time"}
    return options
