"""The routes for those who watch: probes, metrics, which model runs, and where a request is.

Each kind has a router of its own, since not all are open to everybody.
"""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request
from prometheus_client.exposition import choose_encoder
from starlette.responses import Response

from service.api.problems import documented
from service.api.request_context import services
from service.api.schemas import ModelList, RequestState, Status
from service.errors import Draining, ModelLoading, ServiceError, WorkerDead
from service.recognition.answers import model_details

PROBES = frozenset({"/livez", "/readyz", "/metrics"})
"""Paths that machines ask every few seconds: no request for them is logged or traced."""

router = APIRouter()
metrics_router = APIRouter()
models_router = APIRouter()
requests_router = APIRouter()


@router.get("/livez", tags=["operation"], summary="Is the process worth keeping?", responses=documented(WorkerDead))
async def livez(request: Request) -> Status:
    """200 as long as the event loop turns and the worker is not stuck.

    A worker that has died is restarted by the service itself, and a model that is loading takes its time: neither
    is a reason to kill the process.
    """
    health = services(request).recognizer.health()
    if health.state in ("loading", "ready") and not health.worker_alive:
        raise WorkerDead("The inference worker is stuck.")
    return {"status": "alive"}


@router.get(
    "/readyz",
    tags=["operation"],
    summary="May requests be sent here?",
    responses=documented(ModelLoading, Draining, WorkerDead),
)
async def readyz(request: Request) -> Status:
    """200 when the model is loaded and warm and the service is not shutting down; a full queue does not change it."""
    health = services(request).recognizer.health()
    if health.state == "loading":
        raise ModelLoading("The model is loading.")
    if health.state == "draining":
        raise Draining("The service is shutting down.")
    if not (health.state == "ready" and health.worker_alive):
        raise WorkerDead("The inference worker is down.")
    return {"status": "ready"}


@metrics_router.get(
    "/metrics",
    tags=["operation"],
    summary="Prometheus metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **documented(ServiceError)},
)
async def metrics(request: Request) -> Response:
    """The text exposition format, or OpenMetrics where `Accept` asks for it."""
    generate, content_type = choose_encoder(request.headers.get("accept", ""))
    # Thousands of lines take milliseconds, which requests must not wait for.
    text = await asyncio.to_thread(generate, services(request).metrics.registry)
    return Response(text, headers={"Content-Type": content_type})


@models_router.get(
    "/models",
    tags=["recognition"],
    summary="The model and its labels",
    responses=documented(ModelLoading, ServiceError),
)
async def models(request: Request) -> ModelList:
    """Which model answers, on what, with which labels."""
    model = services(request).recognizer.model
    if model is None:
        raise ModelLoading("The model is loading.")
    return {"models": [model_details(model)]}


@requests_router.get(
    "/requests/{id}",
    tags=["operation"],
    summary="Where is a request?",
    responses=documented(ServiceError),
    # Not a parameter of the function: any text is an id, and FastAPI would document a 422 that is never given.
    openapi_extra={"parameters": [{"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}]},
)
async def request_state(request: Request) -> RequestState:
    """Ask with the `X-Request-ID` of a request that waits for its answer.

    `unknown` is no error: the request is not here yet, is over, or is with another instance.
    """
    parts = services(request)
    return parts.progress.state(request.path_params["id"], parts.recognizer)
