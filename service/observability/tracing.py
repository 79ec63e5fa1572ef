"""Sends spans to an OpenTelemetry collector; the only module that imports the SDK, and only if traces are enabled."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry.trace import TracerProvider

from service import __version__
from service.extras import extra

_CLOSE_SECONDS = 2.0
"""Seconds for which the end of the process waits for spans that are not sent yet."""


@contextmanager
def exporting(traces: bool) -> Iterator[TracerProvider | None]:
    """A provider whose spans a thread sends with OTLP over HTTP; None if `traces` is false.

    OpenTelemetry's own variables configure the endpoint, the headers, sampling and the service's name:
    `OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_TRACES_SAMPLER`, `OTEL_SERVICE_NAME`. On exit
    the remaining spans are sent, within two seconds.

    Raises:
        MissingExtra: if the extra `[otel]` is not installed.
    """
    if not traces:
        yield None
        return
    with extra("otel", "Traces need"):
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider as SdkTracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    own = Resource.create({"service.name": "emotion2vec-service", "service.version": __version__})
    provider = SdkTracerProvider(resource=own.merge(OTELResourceDetector().detect()), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    try:
        yield provider
    finally:
        # In a thread, because the SDK waits up to 30 s for a collector that does not answer.
        closing = threading.Thread(target=provider.shutdown, name="trace-shutdown", daemon=True)
        closing.start()
        closing.join(_CLOSE_SECONDS)
