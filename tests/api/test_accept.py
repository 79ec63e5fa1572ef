from __future__ import annotations

import pytest

from service.api.accept import wants_lines


@pytest.mark.parametrize(
    "accept",
    [
        "application/x-ndjson",
        "Application/X-NDJSON",
        "application/x-ndjson; charset=utf-8",
        "application/x-ndjson;q=0.1",
        "application/json;q=0.5, application/x-ndjson;q=0.5",
        "text/html, application/x-ndjson;q=0.9, */*;q=0.8",
        "application/x-ndjson, application/json;q=0.2, */*",
        "application/x-ndjson;q=1.000,",
    ],
)
def test_lines(accept: str) -> None:
    assert wants_lines([accept])


@pytest.mark.parametrize(
    "accept",
    [
        "",
        "*/*",
        "application/*",
        "application/json",
        "application/json, application/x-ndjson;q=0.9",
        "application/x-ndjson;q=0",
        "application/x-ndjson;q=0.000, */*",
        "application/x-ndjson;q=0.5, */*",
        "application/x-ndjson;q=0.5, application/*;q=0.6",
        "application/x-ndjson;q=high",
        "application/x-ndjson;q=2",
        "application/x-ndjson;q=-1",
        ";;;,,,=",
        "text/plain;format=application/x-ndjson",
    ],
)
def test_one_document(accept: str) -> None:
    assert not wants_lines([accept])


def test_several_headers_are_one() -> None:
    assert not wants_lines([])
    assert wants_lines(["application/json;q=0.1", "application/x-ndjson"])
    assert not wants_lines(["application/json", "application/x-ndjson;q=0.1"])
