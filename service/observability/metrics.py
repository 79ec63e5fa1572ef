"""Every Prometheus series of the service.

What happens per request is counted where it happens, through the attributes of `Metrics`. What mirrors the
engine's state (queue, permits, worker, device memory) is read when Prometheus scrapes, so requests do not pay for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from service.errors import (
    Draining,
    KeyInvalid,
    KeyMissing,
    ModelLoading,
    OriginForbidden,
    QueueFull,
    RateLimited,
    StorageFull,
    TooManyStreams,
    WorkerDead,
)
from service.observability.observer import EngineState

STAGES = ("decode", "queue", "preprocess", "inference")
"""Values of the label `stage`, in the order in which a request goes through them."""

CACHE_RESULTS = ("hit", "miss", "bypass")
"""Values of the label `result`; `bypass` is a file whose request did not want a cached answer."""

STREAM_EVENTS = ("ready", "window", "utterance", "result", "problem")
"""Values of the label `type`."""

STREAM_CLOSES = ("1000", "1001", "1005", "1006", "1007", "1008", "1009", "1011", "1012", "1013", "other")
"""Values of the label `code` of streams; a client may close with any of thousands."""

# A quantile read from a histogram lies in the same bucket as the true one, so neighbours that differ by a factor
# of at most 1.2 make it known within 20 %. 1, 2 and 5 are among them, since objectives are set there.
_DECADE = (1.0, 1.2, 1.4, 1.6, 1.8, 2.0, 2.4, 2.8, 3.3, 3.9, 4.5, 5.0, 6.0, 7.0, 8.4)
_SLOW = (10.0, 15.0, 20.0, 30.0, 60.0, 120.0)


def _seconds_from(exponent: int) -> tuple[float, ...]:
    """Bucket bounds from 10^`exponent` seconds: fine up to 10 s, coarse up to two minutes."""
    fine = (round(step * 10.0**power, 1 - power) for power in range(exponent, 1) for step in _DECADE)
    return (*fine, *_SLOW)


class _EngineCollector(Collector):
    """Reads the engine's state once per scrape."""

    def __init__(self, state: Callable[[], EngineState]) -> None:
        self._state = state

    def collect(self) -> Iterator[GaugeMetricFamily]:
        state = self._state()
        for name, text, value in (
            ("queue_depth", "Clips that wait for the worker.", state.queued_clips),
            ("queue_depth_limit", "Clips that may wait for the worker.", state.max_queued_clips),
            ("queue_audio_seconds", "Audio seconds that wait for the worker.", state.queued_seconds),
            ("queue_audio_seconds_limit", "Audio seconds that may wait for the worker.", state.max_queued_seconds),
            ("requests_in_flight", "Requests that hold a permit.", state.requests),
            ("requests_in_flight_limit", "Requests that may hold a permit.", state.max_requests),
            (
                "segment_requests_in_flight",
                "Requests with granularity segment that are worked on.",
                state.recordings,
            ),
            (
                "segment_requests_in_flight_limit",
                "Requests with granularity segment that may be worked on.",
                state.max_recordings,
            ),
            ("streams", "Streams that are open.", state.streams),
            ("streams_limit", "Streams that may be open.", state.max_streams),
            ("worker_up", "Whether the worker is loaded, warm and not stuck (1) or not (0).", state.worker_up),
        ):
            yield GaugeMetricFamily(f"ser_{name}", text, value)
        memory = GaugeMetricFamily("ser_gpu_memory_bytes", "Device memory by kind.", labels=["kind"])
        for kind, size in state.memory.items():
            memory.add_metric([kind], size)
        yield memory


class Metrics:
    """The series, registered in `registry`; one instance per application, so that tests can have several.

    Attributes:
        http_requests: answered requests by `route` (the template, never the path), `method` and `code`.
        http_request_duration: seconds from the request's first byte to the answer's last, by `route`; those with
            granularity segment are left out.
        stage_duration: seconds per request and `stage` (see `STAGES`).
        batch_size: clips per run of the model.
        batch_audio_seconds: audio seconds per run of the model.
        batch_padding_ratio: share of padded frames per run of the model.
        requests_rejected: requests refused, by `reason` (the error's code).
        requests_cancelled: clips whose caller gave up before the answer.
        inference_failures: clips on which the model failed.
        worker_deaths: ends of the worker thread that nobody asked for, failed loads included.
        audio_seconds: audio seconds that the model has scored.
        streams: streams that are over, by the `code` with which they were closed (see `STREAM_CLOSES`).
        stream_events: messages sent on streams, by `type` (see `STREAM_EVENTS`).
        stream_skipped_windows: windows left out, because the one before was still being answered.
        stream_delay: seconds from the last sample of a live window to its answer.
        predictions: answers by the `label` with the highest score; each segment is one, and each utterance of a stream.
        segments: utterances that were answered with granularity segment.
        segment_request_duration: seconds from their first byte to the answer's last, by no route: there is only one.
        cache_requests: files by what the cache of answers did for them (see `CACHE_RESULTS`).
        cache_evictions: answers that had to make room for newer ones.
        cache_bytes: memory that the cached answers take.
        model_info: identity of the loaded model.
        model_load_seconds: seconds that loading and warming up took.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        # A `_created` series beside every counter and histogram would double the former and tell nothing that
        # Prometheus uses. The library has this switch for the whole process only.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # it has no annotations
        self.registry = registry
        self.http_requests = Counter(
            "ser_http_requests_total", "Answered HTTP requests.", ["route", "method", "code"], registry=registry
        )
        self.http_request_duration = Histogram(
            "ser_http_request_duration_seconds",
            "Time from an HTTP request to the end of its answer.",
            ["route"],
            buckets=_seconds_from(-3),
            registry=registry,
        )
        self.stage_duration = Histogram(
            "ser_stage_duration_seconds",
            "Time that a request spent in a stage; preprocess and inference are those of its batch.",
            ["stage"],
            buckets=_seconds_from(-4),
            registry=registry,
        )
        self.batch_size = Histogram(
            "ser_batch_size",
            "Clips per run of the model.",
            buckets=(1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128),
            registry=registry,
        )
        self.batch_audio_seconds = Histogram(
            "ser_batch_audio_seconds",
            "Audio seconds per run of the model.",
            buckets=(0.5, 1, 2, 3, 5, 7.5, 10, 15, 20, 30, 45, 60, 90, 120, 180, 300, 600, 1200),
            registry=registry,
        )
        self.batch_padding_ratio = Histogram(
            "ser_batch_padding_ratio",
            "Share of padded frames per run of the model.",
            buckets=(0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1),
            registry=registry,
        )
        self.requests_rejected = Counter(
            "ser_requests_rejected_total", "Requests refused, by reason.", ["reason"], registry=registry
        )
        self.requests_cancelled = Counter(
            "ser_requests_cancelled_total", "Clips whose caller gave up before the answer.", registry=registry
        )
        self.inference_failures = Counter(
            "ser_inference_failures_total", "Clips on which the model failed.", registry=registry
        )
        self.worker_deaths = Counter(
            "ser_worker_deaths_total", "Unwanted ends of the worker thread, failed loads included.", registry=registry
        )
        self.audio_seconds = Counter(
            "ser_audio_seconds_total", "Audio seconds that the model has scored.", registry=registry
        )
        self.predictions = Counter(
            "ser_predictions_total", "Answers by the label with the highest score.", ["label"], registry=registry
        )
        self.streams = Counter(
            "ser_streams_closed_total", "Streams that are over, by close code.", ["code"], registry=registry
        )
        self.stream_events = Counter(
            "ser_stream_events_total", "Messages sent on streams.", ["type"], registry=registry
        )
        self.stream_skipped_windows = Counter(
            "ser_stream_skipped_windows_total",
            "Windows of streams left out, since the one before was not answered yet.",
            registry=registry,
        )
        self.stream_delay = Histogram(
            "ser_stream_delay_seconds",
            "Time from the last sample of a live window to its answer.",
            buckets=_seconds_from(-3),
            registry=registry,
        )
        self.segments = Counter(
            "ser_segments_total", "Utterances answered with granularity segment.", registry=registry
        )
        self.segment_request_duration = Histogram(
            "ser_segment_request_duration_seconds",
            "Time from a request with granularity segment to the end of its answer.",
            buckets=(0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600),
            registry=registry,
        )
        self.cache_requests = Counter(
            "ser_cache_requests_total",
            "Files by what the cache of answers did.",
            ["result"],
            registry=registry,
        )
        self.cache_evictions = Counter(
            "ser_cache_evictions_total", "Cached answers that made room for newer ones.", registry=registry
        )
        self.cache_bytes = Gauge("ser_cache_bytes", "Memory that the cached answers take.", registry=registry)
        self.model_info = Info("ser_model", "The loaded model.", registry=registry)
        self.model_load_seconds = Gauge(
            "ser_model_load_seconds", "Time that loading and warming up the model took.", registry=registry
        )
        # Series that exist from the beginning make rates and alerts right from the first event on.
        for refusal in (
            QueueFull,
            ModelLoading,
            Draining,
            StorageFull,
            WorkerDead,
            KeyMissing,
            KeyInvalid,
            RateLimited,
            TooManyStreams,
            OriginForbidden,
        ):
            self.requests_rejected.labels(refusal.code)
        for stage in STAGES:
            self.stage_duration.labels(stage)
        for code in STREAM_CLOSES:
            self.streams.labels(code)
        for kind in STREAM_EVENTS:
            self.stream_events.labels(kind)
        for result in CACHE_RESULTS:
            self.cache_requests.labels(result)
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)

    def follow_engine(self, state: Callable[[], EngineState]) -> None:
        """Export an engine's state from now on: `state` is called at every scrape, from whichever thread answers it."""
        self.registry.register(_EngineCollector(state))
