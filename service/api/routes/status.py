"""`GET /models` and `GET /requests/{id}`: the model, and the progress of a request."""

from __future__ import annotations

from fastapi import APIRouter, Request

from service.api.problems import documented
from service.api.request_context import request_context, services
from service.api.schemas import ModelList
from service.errors import ModelLoading, ServiceError
from service.inference.recognizer import Recognizer
from service.recognition.answers import DIGITS, model_details
from service.recognition.core import Progress
from service.recognition.result_types import RequestState

models_router = APIRouter()
requests_router = APIRouter()


@models_router.get(
    "/models",
    tags=["recognition"],
    summary="The model and its labels",
    responses=documented(ModelLoading, ServiceError),
)
async def models(request: Request) -> ModelList:
    """Which model answers, on what, with which labels."""
    return {"models": [model_details(services(request).core.loaded_model())]}


@requests_router.get(
    "/requests/{id}",
    tags=["operation"],
    summary="Where is a request?",
    responses=documented(ServiceError),
    # Not a parameter of the function: any text is an id, and FastAPI would document a 422 that is never answered.
    openapi_extra={"parameters": [{"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}]},
)
async def request_state(request: Request) -> RequestState:
    """Ask with the `X-Request-ID` of a request that waits for its answer.

    `unknown` is no error: the request is not here yet, is over, has another key, or is with another instance.
    """
    parts = services(request)
    progress = parts.requests.get((request_context(request.scope).key_owner, request.path_params["id"]))
    if progress is None:
        return {"state": "unknown"}
    state = _state(progress, parts.core.recognizer)
    if progress.segments is not None:
        state["segments"] = {"answered": progress.segments, "until": round(progress.segments_until, DIGITS)}
    return state


def _state(progress: Progress, recognizer: Recognizer) -> RequestState:
    """The current state of a request; one with several clips is queued as long as all of them are."""
    if not progress.received:
        return {"state": "receiving"}
    if not progress.waiting:
        return {"state": "running" if progress.answered else "decoding"}
    queued = [ahead for clip in progress.waiting.values() if (ahead := recognizer.ahead_of(clip)) is not None]
    if len(queued) < len(progress.waiting):
        return {"state": "running"}
    first = min(queued, key=lambda ahead: ahead.clips)
    return {
        "state": "queued",
        "ahead": {
            "clips": first.clips,
            "audio_seconds": round(first.seconds, DIGITS),
            "wait": None if first.wait is None else round(first.wait, DIGITS),
        },
    }
