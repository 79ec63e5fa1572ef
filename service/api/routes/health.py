"""Probes and metrics, each with its own router, since metrics may need a key."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request
from prometheus_client.exposition import choose_encoder
from starlette.responses import Response

from service.api.problems import documented
from service.api.request_context import services
from service.api.schemas import Status
from service.api.temporary_files import check_temporary_files
from service.errors import Draining, ModelLoading, ServiceError, StorageUnwritable, WorkerDead

router = APIRouter()
metrics_router = APIRouter()


@router.get("/livez", tags=["operation"], summary="Is the process worth keeping?", responses=documented(WorkerDead))
async def livez(request: Request) -> Status:
    """200 as long as the event loop turns and the worker is not stuck.

    A worker that has died is restarted by the service itself, and a model that is loading takes its time: neither
    is a reason to kill the process.
    """
    health = services(request).core.recognizer.health()
    if health.state in ("loading", "ready") and not health.worker_alive:
        raise WorkerDead("The inference worker is stuck.")
    return {"status": "alive"}


@router.get(
    "/readyz",
    tags=["operation"],
    summary="May requests be sent here?",
    responses=documented(ModelLoading, Draining, WorkerDead, StorageUnwritable),
)
async def readyz(request: Request) -> Status:
    """200 when requests can be answered: the model is loaded and warm, and temporary files can be written.

    503 also while the service is shutting down; a full queue does not change it.
    """
    health = services(request).core.recognizer.health()
    if health.state == "loading":
        raise ModelLoading("The model is loading.")
    if health.state == "draining":
        raise Draining("The service is shutting down.")
    if not (health.state == "ready" and health.worker_alive):
        raise WorkerDead("The inference worker is down.")
    await asyncio.to_thread(check_temporary_files)
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
    try:
        generate, content_type = choose_encoder(request.headers.get("accept", ""))
    except (TypeError, ValueError):  # it compares versions that are not numbers
        generate, content_type = choose_encoder("")
    # Thousands of lines take milliseconds, which would block the event loop.
    text = await asyncio.to_thread(generate, services(request).metrics.registry)
    return Response(text, headers={"Content-Type": content_type})
