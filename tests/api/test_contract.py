"""The application does what its OpenAPI document says, whatever it is sent."""

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

READING = ["/livez", "/readyz", "/models", "/metrics"]
RECOGNISING = ["/recognize", "/recognize/batch"]


@pytest.fixture
def schema() -> schemathesis.BaseSchema:
    app = create_app(RecognizerDouble(), Settings(), Metrics(CollectorRegistry()))
    return schemathesis.openapi.from_asgi("/openapi.json", app)


@pytest.mark.parametrize("path", READING)
def test_reading(schema: schemathesis.BaseSchema, path: str) -> None:
    assert run(schema[path]["GET"].as_strategy()) == {200}


@pytest.mark.parametrize("path", RECOGNISING)
def test_requests_that_fit_the_description(schema: schemathesis.BaseSchema, path: str) -> None:
    # What the schema cannot say (options that need each other, the model's labels) may still be refused.
    statuses = run(schema[path]["POST"].as_strategy(generation_mode=GenerationMode.POSITIVE).map(promising))
    assert 200 in statuses
    assert statuses <= {200, 422}


@pytest.mark.parametrize("path", RECOGNISING)
def test_requests_that_do_not_fit_the_description(schema: schemathesis.BaseSchema, path: str) -> None:
    statuses = run(schema[path]["POST"].as_strategy(generation_mode=GenerationMode.NEGATIVE))
    assert 422 in statuses
    assert statuses <= {400, 415, 422}


@pytest.mark.parametrize(("method", "path"), [("GET", "/models"), ("GET", "/metrics"), ("POST", "/recognize")])
def test_what_the_document_says_of_keys(method: str, path: str) -> None:
    """One of the checks leaves the key out, or makes it wrong, and expects a refusal."""
    key = "0123456789abcdef"
    app = create_app(RecognizerDouble(), Settings(api_keys=(SecretStr(key),)), Metrics(CollectorRegistry()))
    cases = schemathesis.openapi.from_asgi("/openapi.json", app)[path][method].as_strategy(
        generation_mode=GenerationMode.POSITIVE
    )
    if method == "POST":
        cases = cases.map(promising)
    assert run(cases, {"X-API-Key": key}) >= {200}
    assert run(cases) == {401}


def run(cases: SearchStrategy[Any], headers: dict[str, str] | None = None) -> set[int]:
    """Send requests, check that the answers are as described, and return their statuses."""
    statuses: set[int] = set()
    # Whether a request was rightly taken or refused is told here by what was sent, not by these.
    excluded: Any = CHECKS.get_by_names(["positive_data_acceptance", "negative_data_rejection"])

    @given(case=cases)
    @settings(max_examples=20, deadline=None, derandomize=True, database=None)
    def ask(case: schemathesis.Case[Any]) -> None:
        statuses.add(case.call_and_validate(excluded_checks=excluded, headers=headers).status_code)

    ask()
    return statuses


def promising(case: schemathesis.Case[Any]) -> schemathesis.Case[Any]:
    """With audio in place of random bytes, and with the time to recognise it."""
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
