from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from service.api.problems import PROBLEM_MEDIA_TYPE
from service.api.request_body import RAW
from service.recognition.options import OPTIONS
from tests.api.answers import check_problem
from tests.api.golden import PATH, current


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return current()


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for operation in methods.values():
            yield path, operation


def test_the_document_is_the_golden_file(document: dict[str, Any]) -> None:
    assert document == json.loads(PATH.read_text(encoding="utf-8")), "renew it with python -m tests.api.golden"


def test_the_paths(document: dict[str, Any]) -> None:
    assert set(document["paths"]) == {
        "/recognize",
        "/recognize/batch",
        "/models",
        "/requests/{id}",
        "/livez",
        "/readyz",
        "/metrics",
    }


def test_every_error_is_a_problem_with_examples(document: dict[str, Any]) -> None:
    codes: dict[str, set[str]] = {}
    for path, operation in operations(document):
        for status, response in operation["responses"].items():
            if status == "200":
                continue
            (media,) = response["content"]
            assert media == PROBLEM_MEDIA_TYPE
            assert response["content"][media]["schema"] == {"$ref": "#/components/schemas/Problem"}
            for code, example in response["content"][media]["examples"].items():
                check_problem(example["value"], int(status), code)
                codes.setdefault(path, set()).add(f"{status} {code}")
            assert ("Retry-After" in response.get("headers", {})) is (status in ("429", "503"))
    assert codes["/recognize"] == codes["/recognize/batch"] | {
        "413 audio_too_long",
        "415 audio_not_decodable",
        "422 audio_empty",
        "422 audio_too_short",
        "422 audio_truncated",
        "422 audio_not_finite",
        "500 inference_failed",
        "503 decoder_unavailable",
    }
    assert codes["/recognize/batch"] == {
        "400 malformed_body",
        "403 host_forbidden",
        "408 upload_timeout",
        "413 body_too_large",
        "415 unsupported_media_type",
        "415 unsupported_content_encoding",
        "422 invalid_options",
        "429 queue_full",
        "429 caller_limit",
        "500 internal_error",
        "503 model_loading",
        "503 draining",
        "503 storage_full",
        "503 storage_unwritable",
        "503 worker_dead",
        "504 deadline_exceeded",
    }


def test_options_are_parameters_and_fields(document: dict[str, Any]) -> None:
    names = set(OPTIONS)
    for path, files in (("/recognize", {"file", "audio"}), ("/recognize/batch", {"files"})):
        operation = document["paths"][path]["post"]
        assert {parameter["name"] for parameter in operation["parameters"]} == names
        assert all(parameter["description"] for parameter in operation["parameters"])
        form = operation["requestBody"]["content"]["multipart/form-data"]["schema"]
        assert set(form["properties"]) == names | files
        assert form["additionalProperties"] is False
    assert set(document["paths"]["/recognize"]["post"]["requestBody"]["content"]) == {"multipart/form-data", *RAW}


def test_all_references_resolve(document: dict[str, Any]) -> None:
    def references(value: Any) -> Iterator[str]:
        if isinstance(value, dict):
            if isinstance(value.get("$ref"), str):
                yield value["$ref"]
            for item in value.values():
                yield from references(item)
        elif isinstance(value, list):
            for item in value:
                yield from references(item)

    schemas = document["components"]["schemas"]
    for reference in references(document):
        assert reference.removeprefix("#/components/schemas/") in schemas
