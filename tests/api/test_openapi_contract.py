"""The responses match the OpenAPI document for generated requests."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import given, settings
from hypothesis.strategies import SearchStrategy
from prometheus_client import CollectorRegistry
from pydantic import SecretStr
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS

from service.api.app import create_app
from service.observability.metrics import Metrics
from service.settings.settings import Settings
from tests.api.double import RecognizerDouble
from tests.api.sounds import wav

CLIP = wav(0.1)

GET_PATHS = ["/livez", "/readyz", "/models", "/metrics"]
RECOGNITION_PATHS = ["/recognize", "/recognize/batch"]


@pytest.fixture
def schema() -> schemathesis.BaseSchema:
    app = create_app(RecognizerDouble(), Settings(allowed_hosts=("*",)), Metrics(CollectorRegistry()))
    return schemathesis.openapi.from_asgi("/openapi.json", app)


@pytest.mark.parametrize("path", GET_PATHS)
def test_get_operations(schema: schemathesis.BaseSchema, path: str) -> None:
    assert run(schema[path]["GET"].as_strategy()) == {200}


@pytest.mark.parametrize("path", RECOGNITION_PATHS)
def test_requests_that_fit_the_description(schema: schemathesis.BaseSchema, path: str) -> None:
    # Rules that the schema cannot express (dependent options, the model's labels) may still cause a refusal.
    statuses = run(schema[path]["POST"].as_strategy(generation_mode=GenerationMode.POSITIVE).map(with_real_audio))
    assert 200 in statuses
    assert statuses <= {200, 422}


@pytest.mark.parametrize("path", RECOGNITION_PATHS)
def test_requests_that_do_not_fit_the_description(schema: schemathesis.BaseSchema, path: str) -> None:
    statuses = run(schema[path]["POST"].as_strategy(generation_mode=GenerationMode.NEGATIVE))
    assert 422 in statuses
    assert statuses <= {400, 415, 422}


@pytest.mark.parametrize(("method", "path"), [("GET", "/models"), ("GET", "/metrics"), ("POST", "/recognize")])
def test_operations_that_need_a_key(method: str, path: str) -> None:
    """One of the checks removes or changes the key and expects a refusal."""
    key = "0123456789abcdef"
    chosen = Settings(api_keys=(SecretStr(key),), allowed_hosts=("*",))
    app = create_app(RecognizerDouble(), chosen, Metrics(CollectorRegistry()))
    cases = schemathesis.openapi.from_asgi("/openapi.json", app)[path][method].as_strategy(
        generation_mode=GenerationMode.POSITIVE
    )
    if method == "POST":
        cases = cases.map(with_real_audio)
    assert run(cases, {"X-API-Key": key}) >= {200}
    assert run(cases) == {401}


def run(cases: SearchStrategy[Any], headers: dict[str, str] | None = None) -> set[int]:
    """Send generated requests, check the responses against the document, and return their statuses."""
    statuses: set[int] = set()
    # The tests themselves check which requests are accepted and refused.
    excluded: Any = CHECKS.get_by_names(["positive_data_acceptance", "negative_data_rejection"])

    @given(case=cases)
    @settings(max_examples=20, deadline=None, derandomize=True, database=None)
    def ask(case: schemathesis.Case[Any]) -> None:
        statuses.add(case.call_and_validate(excluded_checks=excluded, headers=headers).status_code)

    ask()
    return statuses


def with_real_audio(case: schemathesis.Case[Any]) -> schemathesis.Case[Any]:
    """The case with audio in place of random bytes and without a timeout."""
    body: Any = case.body
    if isinstance(body, dict):
        body = {name: value for name, value in body.items() if name != "timeout"}
        body |= {name: CLIP for name in ("file", "audio") if name in body}
        if "files" in body:
            body["files"] = [CLIP] * len(body["files"])
    else:
        body = CLIP
    case.body = body
    case.query = {name: value for name, value in case.query.items() if name != "timeout"}
    return case
