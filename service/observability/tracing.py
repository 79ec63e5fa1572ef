"""Sends spans to an OpenTelemetry collector; the only module that imports the SDK, and only where traces are on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry.trace import TracerProvider

from service import __version__
from service.extras import extra

_LAST_SECONDS = 2.0


@contextmanager
def exporting(traces: bool) -> Iterator[TracerProvider | None]:
    """A provider whose spans are sent by OTLP over HTTP from a thread of its own; None where `traces` is false.

    Where to, with which headers, how many are sampled, and what the service is called is told by OpenTelemetry's own
    variables: `OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_TRACES_SAMPLER`, `OTEL_SERVICE_NAME`.
    On leaving, what has not been sent yet is sent; a collector that does not answer is waited for two seconds.

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
        # The SDK itself would wait for half a minute.
        closing = threading.Thread(target=provider.shutdown, name="trace-shutdown", daemon=True)
        closing.start()
        closing.join(_LAST_SECONDS)
