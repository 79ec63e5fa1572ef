"""What recognition reports, as Prometheus series and as spans."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from types import FunctionType

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from prometheus_client import CollectorRegistry

from service.errors import InferenceFailed
from service.observability.metrics import Metrics
from service.observability.observer import Observer
from service.observability.telemetry import Telemetry
from service.results import Timings
from tests.inference.fake_backend import LABELS, model_info
from tests.observability.test_metrics import STATE

TIMINGS = Timings(decode=9.0, queue=0.25, preprocess=0.5, inference=1.0)


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def telemetry(registry: CollectorRegistry) -> Telemetry:
    return Telemetry(Metrics(registry))


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracing(registry: CollectorRegistry, exporter: InMemorySpanExporter) -> Telemetry:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return Telemetry(Metrics(registry), provider)


def test_every_report_is_handled() -> None:
    reports = {name for name, member in vars(Observer).items() if isinstance(member, FunctionType)}
    assert reports <= vars(Telemetry).keys()


@pytest.mark.parametrize(
    ("report", "series", "labels", "value"),
    [
        (lambda to: to.run_finished(3, 4.5, 0.25), "batch_size_sum", {}, 3),
        (lambda to: to.run_finished(3, 4.5, 0.25), "batch_audio_seconds_sum", {}, 4.5),
        (lambda to: to.run_finished(3, 4.5, 0.25), "batch_padding_ratio_sum", {}, 0.25),
        (lambda to: to.run_finished(3, 4.5, 0.25), "audio_seconds_total", {}, 4.5),
        (lambda to: to.clip_answered(TIMINGS), "stage_duration_seconds_sum", {"stage": "queue"}, 0.25),
        (lambda to: to.clip_answered(TIMINGS), "stage_duration_seconds_sum", {"stage": "preprocess"}, 0.5),
        (lambda to: to.clip_answered(TIMINGS), "stage_duration_seconds_sum", {"stage": "inference"}, 1.0),
        (lambda to: to.clip_answered(TIMINGS), "stage_duration_seconds_count", {"stage": "decode"}, 0),
        (lambda to: to.clip_failed(), "inference_failures_total", {}, 1),
        (lambda to: to.worker_died(), "worker_deaths_total", {}, 1),
        (lambda to: to.request_refused("draining"), "requests_rejected_total", {"reason": "draining"}, 1),
        (lambda to: to.request_cancelled(), "requests_cancelled_total", {}, 1),
        (lambda to: to.file_decoded(0.5), "stage_duration_seconds_sum", {"stage": "decode"}, 0.5),
        (lambda to: to.label_predicted("sad"), "predictions_total", {"label": "sad"}, 1),
        (lambda to: to.segment_answered(), "segments_total", {}, 1),
        (lambda to: to.cache_looked_up("bypass"), "cache_requests_total", {"result": "bypass"}, 1),
        (lambda to: to.cache_changed(77), "cache_bytes", {}, 77),
        (lambda to: to.cache_evicted(), "cache_evictions_total", {}, 1),
        (lambda to: to.window_answered(0.5), "stream_delay_seconds_sum", {}, 0.5),
        (lambda to: to.windows_skipped(4), "stream_skipped_windows_total", {}, 4),
        (lambda to: to.engine_created(lambda: STATE), "queue_depth", {}, 1),
        (lambda to: to.model_loaded(model_info(), 2.5), "model_load_seconds", {}, 2.5),
    ],
)
def test_reports_are_counted(
    telemetry: Telemetry,
    registry: CollectorRegistry,
    report: Callable[[Telemetry], None],
    series: str,
    labels: dict[str, str],
    value: float,
) -> None:
    report(telemetry)
    assert registry.get_sample_value(f"ser_{series}", labels) == value


def test_a_loaded_model_has_a_series_for_each_label_that_it_answers(
    telemetry: Telemetry, registry: CollectorRegistry
) -> None:
    telemetry.model_loaded(model_info(masked=frozenset({2})), 1.0)
    counts = {label.en: registry.get_sample_value("ser_predictions_total", {"label": label.en}) for label in LABELS}
    assert counts == {label.en: None if index == 2 else 0 for index, label in enumerate(LABELS)}


def test_without_a_tracer_provider_steps_run_without_spans(telemetry: Telemetry) -> None:
    with telemetry.span("decode"):
        telemetry.add_stage_spans(0, TIMINGS)


def test_the_stages_of_a_clip_follow_one_another_below_its_span(
    tracing: Telemetry, exporter: InMemorySpanExporter
) -> None:
    with tracing.span("recognize"):
        tracing.add_stage_spans(1_000, TIMINGS)
    *stages, parent = exporter.get_finished_spans()
    assert (parent.name, parent.status.status_code) == ("recognize", StatusCode.UNSET)
    assert [stage.name for stage in stages] == ["queue", "preprocess", "inference"]
    assert {stage.parent.span_id if stage.parent else None for stage in stages} == {parent.context.span_id}
    assert stages[0].start_time == 1_000
    assert [(stage.end_time or 0) - (stage.start_time or 0) for stage in stages] == [250_000_000, 500_000_000, 10**9]
    assert all(one.end_time == other.start_time for one, other in pairwise(stages))


def test_stages_outside_of_a_span_are_not_traced(tracing: Telemetry, exporter: InMemorySpanExporter) -> None:
    tracing.add_stage_spans(1_000, TIMINGS)
    assert exporter.get_finished_spans() == ()


@pytest.mark.parametrize(
    ("error", "kind"), [(InferenceFailed("secret"), "inference_failed"), (KeyError("secret"), "KeyError")], ids=repr
)
def test_a_failed_span_has_the_kind_of_the_error_and_not_its_text(
    tracing: Telemetry, exporter: InMemorySpanExporter, error: Exception, kind: str
) -> None:
    with pytest.raises(type(error)), tracing.span("recognize"):
        raise error
    (span,) = exporter.get_finished_spans()
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes == {"error.type": kind}
    assert span.events == ()
    assert "secret" not in span.to_json()
