"""Checks that every response must pass."""

from __future__ import annotations

from typing import Any

import httpx
from pydantic import TypeAdapter

from service.api.problems import PROBLEM_TYPE
from service.api.schemas import Problem

_PROBLEM = TypeAdapter(Problem)


def problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The problem document of a response, checked."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = response.json()
    check_problem(document, status, code)
    assert document["request_id"] == response.headers["x-request-id"]
    return document


def check_problem(document: dict[str, Any], status: int, code: str) -> None:
    _PROBLEM.validate_python(document, strict=True)
    assert set(document) == {"type", "title", "status", "detail", "code", "request_id", "errors"}
    assert (document["status"], document["code"]) == (status, code)
    assert document["type"] == PROBLEM_TYPE + code
    assert document["title"]
    assert document["detail"]


def fields(document: dict[str, Any]) -> dict[str, str]:
    """Kinds of the errors of a problem by field."""
    return {error["field"]: error["kind"] for error in document["errors"]}
