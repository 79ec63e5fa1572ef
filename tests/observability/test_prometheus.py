"""The series of a real server after real traffic, as a real Prometheus has scraped them."""

from __future__ import annotations

import math
import subprocess

import numpy as np
import pytest

from service.observability.metrics import STAGES
from tests.observability.conftest import Observed
from tests.observability.test_metrics import SERIES
from tests.observability.traffic import CLIP_SECONDS, REQUESTS
from tests.tools import needed

QUANTILES = (0.5, 0.95, 0.99)
LOWEST_BUCKET = 1e-4
"""Upper bound of the first bucket of the histogram of stages, in seconds."""


def measured(values: list[float], quantile: float) -> float:
    """The quantile as Prometheus defines it: the smallest value that at least this share does not exceed."""
    return float(np.quantile(values, quantile, method="inverted_cdf"))


def test_all_series_are_scraped(observed: Observed) -> None:
    scraped = set(observed.prometheus.api("label/__name__/values"))
    only_with_a_gpu = {"ser_gpu_memory_bytes"}
    assert set(SERIES) - scraped == only_with_a_gpu
    for name in only_with_a_gpu:  # declared, but without samples
        (declared,) = observed.prometheus.api("targets/metadata", metric=name)
        assert declared["type"] == "gauge"
    for name in SERIES.keys() - only_with_a_gpu:
        for labels, _ in observed.prometheus.query(name):
            assert SERIES[name] <= labels.keys()


def test_prometheus_has_no_series_that_are_not_declared(observed: Observed) -> None:
    names = {name for name in observed.prometheus.api("label/__name__/values") if name.startswith("ser_")}
    assert {name for name in names if not name.endswith(("_sum", "_count"))} <= SERIES.keys()


def test_promtool_accepts_names_and_units(observed: Observed) -> None:
    command = [needed("promtool"), "check", "metrics"]
    run = subprocess.run(command, input=observed.exposed, capture_output=True, text=True, timeout=30, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


def test_counts_equal_those_of_the_client(observed: Observed) -> None:
    assert {answer.status for answer in observed.answers} == {200}
    counted = observed.prometheus.query('ser_http_requests_total{code="200", route=~"/recognize.*"}')
    without_segments = {"/recognize": 1}  # a silent file with granularity segment
    assert {labels["route"]: value - without_segments.get(labels["route"], 0) for labels, value in counted} == REQUESTS
    assert observed.prometheus.value("ser_segment_request_duration_seconds_count") == 1
    sent = sum(REQUESTS.values())
    assert observed.prometheus.value("sum(ser_predictions_total)") == sent
    streamed = 1  # window of half a second
    assert observed.prometheus.value("sum(ser_stream_delay_seconds_count)") == streamed
    assert observed.prometheus.value("sum(ser_batch_size_sum)") == sent + streamed
    assert observed.prometheus.value("ser_audio_seconds_total") == pytest.approx(CLIP_SECONDS * sent + 0.5 * streamed)
    assert observed.prometheus.value("ser_queue_depth + ser_requests_in_flight") == 0


@pytest.mark.parametrize("quantile", QUANTILES)
@pytest.mark.parametrize("route", REQUESTS)
def test_quantiles_by_route_equal_those_of_the_client(observed: Observed, route: str, quantile: float) -> None:
    logged = {line["request_id"]: float(line["seconds"]) for line in observed.logged}
    took = [(answer.seconds, logged[answer.id]) for answer in observed.answers if answer.route == route]
    # If this process was paused while an answer was ready, the time of the client exceeds that of the server.
    values = [client if client < server + 0.1 else server for client, server in took]
    assert sum(client < server + 0.1 for client, server in took) > len(took) / 2
    buckets = f'ser_http_request_duration_seconds_bucket{{route="{route}"}}'
    found = observed.prometheus.value(f"histogram_quantile({quantile}, sum by (le) ({buckets}))")
    assert found == pytest.approx(measured(values, quantile), rel=0.2)


@pytest.mark.parametrize("quantile", QUANTILES)
@pytest.mark.parametrize("stage", STAGES)
def test_quantiles_by_stage_equal_those_of_the_server_timing_header(
    observed: Observed, stage: str, quantile: float
) -> None:
    values = sorted(answer.stages[stage] for answer in observed.answers)
    buckets = f'ser_stage_duration_seconds_bucket{{stage="{stage}"}}'
    found = observed.prometheus.value(f"histogram_quantile({quantile}, sum by (le) ({buckets}))")
    # The window of the stream counts too, which may shift the quantile by one rank.
    rank = values.index(measured(values, quantile))
    least, most = values[max(rank - 1, 0)], values[min(rank + 1, len(values) - 1)]
    assert found is not None
    assert 0.8 * least - LOWEST_BUCKET <= found <= 1.2 * most + LOWEST_BUCKET


def test_recording_rules_give_quantiles_for_every_route_and_stage(observed: Observed) -> None:
    for quantile in ("p50", "p95", "p99"):
        routes = observed.prometheus.query(f"route:ser_http_request_duration_seconds:{quantile}_5m")
        assert {labels["route"] for labels, _ in routes} >= {*REQUESTS, "/metrics"}
        stages = observed.prometheus.query(f"stage:ser_stage_duration_seconds:{quantile}_5m")
        assert {labels["stage"] for labels, _ in stages} == {*STAGES}


def test_no_alert_fires_for_a_healthy_service(observed: Observed) -> None:
    alerts = observed.prometheus.api("alerts")[
        "alerts"
    ]  # latency alerts are pending, because the uploads are slow on purpose
    assert [alert for alert in alerts if alert["state"] == "firing"] == []
    saturation = observed.prometheus.query("instance:ser_saturation:ratio")
    assert {labels["limit"] for labels, _ in saturation} == {"clips", "audio_seconds", "requests"}
    assert observed.prometheus.value("job:ser_recognize_errors:ratio_rate5m") == 0
    slow = observed.prometheus.value("job:ser_recognize_slow:ratio_rate5m")
    assert slow is not None
    assert not math.isnan(slow)


def test_every_request_has_one_log_line_with_the_stages_of_its_answer(observed: Observed) -> None:
    by_id = {line["request_id"]: line for line in observed.logged}
    others = 5  # /models, a 404, a 415, one with granularity segment, a stream
    assert len(by_id) == len(observed.logged) == len(observed.answers) + others
    for answer in observed.answers:
        line = by_id[answer.id]
        assert (line["route"], line["status"], line["files"]) == (answer.route, 200, 1)
        assert line["audio_seconds"] == pytest.approx(CLIP_SECONDS)
        assert {stage: line[f"{stage}_seconds"] for stage in STAGES} == pytest.approx(answer.stages, abs=1e-6)
        assert line["seconds"] >= sum(answer.stages.values()) - 1e-5
