from __future__ import annotations

import subprocess
from dataclasses import replace
from itertools import pairwise

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from service.observability.metrics import STAGES, Metrics
from service.observability.observer import EngineState
from tests.tools import needed

SERIES = {
    "ser_http_requests_total": {"route", "method", "code"},
    "ser_http_request_duration_seconds_bucket": {"route", "le"},
    "ser_stage_duration_seconds_bucket": {"stage", "le"},
    "ser_batch_size_bucket": {"le"},
    "ser_batch_audio_seconds_bucket": {"le"},
    "ser_batch_padding_ratio_bucket": {"le"},
    "ser_queue_depth": set(),
    "ser_queue_audio_seconds": set(),
    "ser_requests_in_flight": set(),
    "ser_requests_rejected_total": {"reason"},
    "ser_requests_cancelled_total": set(),
    "ser_audio_seconds_total": set(),
    "ser_predictions_total": {"label"},
    "ser_segments_total": set(),
    "ser_segment_requests_in_flight": set(),
    "ser_segment_requests_in_flight_limit": set(),
    "ser_segment_request_duration_seconds_bucket": {"le"},
    "ser_streams": set(),
    "ser_streams_limit": set(),
    "ser_streams_closed_total": {"code"},
    "ser_stream_events_total": {"type"},
    "ser_stream_skipped_windows_total": set(),
    "ser_stream_delay_seconds_bucket": {"le"},
    "ser_worker_up": set(),
    "ser_cache_requests_total": {"result"},
    "ser_cache_evictions_total": set(),
    "ser_cache_bytes": set(),
    "ser_model_info": {"id", "revision"},
    "ser_model_load_seconds": set(),
    "ser_gpu_memory_bytes": {"kind"},
    "ser_inference_failures_total": set(),
    "ser_worker_deaths_total": set(),
    "ser_queue_depth_limit": set(),
    "ser_queue_audio_seconds_limit": set(),
    "ser_requests_in_flight_limit": set(),
}

STATE = EngineState(
    queued_clips=1,
    max_queued_clips=30,
    queued_seconds=2.5,
    max_queued_seconds=45.0,
    requests=3,
    max_requests=60,
    recordings=2,
    max_recordings=5,
    streams=8,
    max_streams=9,
    worker_up=True,
    memory={"allocated": 7},
)


def used_metrics() -> tuple[Metrics, CollectorRegistry]:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    metrics.http_requests.labels("/recognize", "POST", "200").inc()
    metrics.http_request_duration.labels("/recognize").observe(0.1)
    metrics.predictions.labels("angry").inc()
    metrics.model_info.info({"id": "tiny", "revision": "1"})
    metrics.follow_engine(lambda: STATE)
    return metrics, registry


def test_all_series_exist_with_their_labels() -> None:
    _, registry = used_metrics()
    samples: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        for sample in family.samples:
            samples.setdefault(sample.name, set()).update(sample.labels)
    service_samples = {name: labels for name, labels in samples.items() if name.startswith("ser_")}
    assert {name: service_samples.get(name) for name in SERIES} == SERIES
    suffixes = ("_sum", "_count")
    assert {name for name in service_samples if not name.endswith(suffixes)} == set(SERIES)
    assert {"process_resident_memory_bytes", "python_info"} <= set(samples)


def test_promtool_accepts_all_series() -> None:
    _, registry = used_metrics()
    command = [needed("promtool"), "check", "metrics"]
    checked = subprocess.run(command, input=generate_latest(registry), capture_output=True, check=False, timeout=30)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


@pytest.mark.parametrize(
    ("name", "labels", "lowest"),
    [
        ("http_request_duration", {"route": "/"}, 0.005),
        ("stage_duration", {"stage": "queue"}, 0.0001),
        ("stream_delay", {}, 0.005),
    ],
)
def test_buckets_limit_the_error_of_quantiles_up_to_ten_seconds_to_20_percent(
    name: str, labels: dict[str, str], lowest: float
) -> None:
    metrics, registry = used_metrics()
    series = getattr(metrics, name)
    (series.labels(**labels) if labels else series).observe(0.1)
    family = f"ser_{name}_seconds"
    bounds = sorted(
        float(sample.labels["le"])
        for metric in registry.collect()
        if metric.name == family
        for sample in metric.samples
        if sample.name.endswith("_bucket") and sample.labels.items() >= labels.items()
    )
    fine = [bound for bound in bounds if bound <= 10]
    assert fine[0] <= lowest
    assert fine[-1] == 10
    assert max(high / low for low, high in pairwise(fine)) <= 1.2 + 1e-9
    assert bounds[-2:] == [120.0, float("inf")]


def test_the_state_of_the_engine_is_read_at_every_scrape() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    state = replace(STATE, memory={"peak": 4})
    metrics.follow_engine(lambda: state)
    assert registry.get_sample_value("ser_queue_depth") == 1
    assert registry.get_sample_value("ser_queue_audio_seconds") == 2.5
    assert registry.get_sample_value("ser_queue_depth_limit") == 30
    assert registry.get_sample_value("ser_queue_audio_seconds_limit") == 45
    assert registry.get_sample_value("ser_requests_in_flight_limit") == 60
    assert registry.get_sample_value("ser_requests_in_flight") == 3
    assert registry.get_sample_value("ser_segment_requests_in_flight") == 2
    assert registry.get_sample_value("ser_segment_requests_in_flight_limit") == 5
    assert registry.get_sample_value("ser_streams") == 8
    assert registry.get_sample_value("ser_streams_limit") == 9
    assert registry.get_sample_value("ser_worker_up") == 1
    assert registry.get_sample_value("ser_gpu_memory_bytes", {"kind": "peak"}) == 4
    state = replace(STATE, queued_clips=0, memory={})
    assert registry.get_sample_value("ser_queue_depth") == 0
    assert registry.get_sample_value("ser_gpu_memory_bytes", {"kind": "peak"}) is None


def test_series_exist_before_their_first_event() -> None:
    registry = CollectorRegistry()
    Metrics(registry)
    for reason in ("queue_full", "caller_limit", "model_loading", "draining", "worker_dead"):
        assert registry.get_sample_value("ser_requests_rejected_total", {"reason": reason}) == 0
    for stage in STAGES:
        assert registry.get_sample_value("ser_stage_duration_seconds_count", {"stage": stage}) == 0


def test_applications_do_not_share_their_series() -> None:
    (one, first), (_, second) = used_metrics(), used_metrics()
    one.requests_cancelled.inc()
    assert first.get_sample_value("ser_requests_cancelled_total") == 1
    assert second.get_sample_value("ser_requests_cancelled_total") == 0
