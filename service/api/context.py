"""What every route needs: the parts of the application, and who is asking since when."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import cast

from starlette.requests import Request
from starlette.types import Scope

from service.api.cache import AnswerCache
from service.inference.recognizer import Recognizer
from service.metrics import Metrics
from service.settings import Settings

_SCOPE_KEY = "emotion2vec_service.request"


@dataclass(frozen=True, slots=True)
class Services:
    """The parts that routes share; `pool` decodes uploads and builds large answers, `cache` is None where it is off."""

    recognizer: Recognizer
    settings: Settings
    metrics: Metrics
    pool: ThreadPoolExecutor
    cache: AnswerCache | None


@dataclass(frozen=True, slots=True)
class RequestContext:
    """One request: its id, its arrival on the loop's clock, and the W3C trace that it belongs to, if any."""

    id: str
    arrival: float
    trace_id: str | None


def services(request: Request) -> Services:
    """The parts of the application that answers `request`."""
    return cast(Services, request.app.state.services)


def put_request_context(scope: Scope, context: RequestContext) -> None:
    """Attach `context` to a request; the outermost middleware does."""
    scope[_SCOPE_KEY] = context


def request_context(scope: Scope) -> RequestContext:
    """The context of a request."""
    return cast(RequestContext, scope[_SCOPE_KEY])
