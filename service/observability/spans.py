"""OpenTelemetry spans of a request, below the one that FastAPI opens for it; by the API alone, without an SDK."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fastapi.telemetry import TelemetryConfig
from opentelemetry.trace import NoOpTracer, Status, StatusCode, Tracer, TracerProvider, get_current_span
from starlette.types import Scope

from service import __version__
from service.api.routes.health import PROBES
from service.errors import ServiceError
from service.results import Timings

_NAME = "emotion2vec-service"


def telemetry(provider: TracerProvider | None) -> TelemetryConfig:
    """What FastAPI is told: to open a span for each request where there is a provider, and to do nothing else.

    Metrics are Prometheus's business here, and logs `service.observability.logs`'s.
    """
    return {
        "tracer_provider": provider,
        "tracing": provider is not None,
        "operation_spans": False,
        "metrics": False,
        "logs": False,
        "auto_configure": False,
        "exclude": _is_probe,
    }


def tracer_of(provider: TracerProvider | None) -> Tracer:
    """What makes the spans of the service's own stages."""
    return NoOpTracer() if provider is None else provider.get_tracer(_NAME, __version__)


@contextmanager
def span(tracer: Tracer, name: str) -> Iterator[None]:
    """A span around a step. Of an error it says the code, or the class, and never the text."""
    with tracer.start_as_current_span(name, record_exception=False, set_status_on_exception=False) as opened:
        try:
            yield
        except BaseException as error:  # a caller that leaves cancels the step
            opened.set_attribute("error.type", error.code if isinstance(error, ServiceError) else type(error).__name__)
            opened.set_status(Status(StatusCode.ERROR))
            raise


def add_stages(tracer: Tracer, queued: int, timings: Timings) -> None:
    """Add spans for what a clip went through in the engine, below the present one.

    Args:
        tracer: makes them.
        queued: when the clip was handed over, in nanoseconds of `time.time_ns`.
        timings: what the engine says of it. Its stages follow one another without a gap.
    """
    if not get_current_span().is_recording():
        return
    begin = queued
    for stage in ("queue", "preprocess", "inference"):
        end = begin + round(1e9 * getattr(timings, stage))
        tracer.start_span(stage, start_time=begin).end(end)
        begin = end


def _is_probe(scope: Scope) -> bool:
    return str(scope["path"]).removeprefix(scope.get("root_path", "")) in PROBES
