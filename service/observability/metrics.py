"""Every Prometheus series of the service.

Events of requests are counted where they happen, through the attributes of `Metrics`. The state of the engine (queue,
permits, worker, device memory) is read only when Prometheus scrapes, so that requests do not spend time on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields

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
from service.results import Timings

STAGES = tuple(stage.name for stage in fields(Timings))
"""Values of the label `stage`, in request order."""

CACHE_RESULTS = ("hit", "miss", "bypass")
"""Values of the label `result`; `bypass` counts files whose request refused cached answers."""

STREAM_EVENTS = ("ready", "window", "utterance", "result", "problem")
"""Values of the label `type`: the events that a stream sends."""

STREAM_CLOSES = ("1000", "1001", "1005", "1006", "1007", "1008", "1009", "1011", "1012", "1013", "other")
"""Values of the label `code` of closed streams; `other` stands for all others that a client may choose."""

# A quantile estimated from a histogram lies in the same bucket as the true one. Bounds that differ by a factor of at
# most 1.2 thus limit its error to 20 %. 1, 2 and 5 are included, because objectives are set there.
_DECADE = (1.0, 1.2, 1.4, 1.6, 1.8, 2.0, 2.4, 2.8, 3.3, 3.9, 4.5, 5.0, 6.0, 7.0, 8.4)
_SLOW = (10.0, 15.0, 20.0, 30.0, 60.0, 120.0)


def _seconds_from(exponent: int) -> tuple[float, ...]:
    """Bucket bounds from 10^`exponent` seconds on: fine up to 10 s, coarse up to two minutes."""
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
            ("queue_depth_limit", "Limit of clips that wait for the worker.", state.max_queued_clips),
            ("queue_audio_seconds", "Audio seconds that wait for the worker.", state.queued_seconds),
            ("queue_audio_seconds_limit", "Limit of audio seconds that wait for the worker.", state.max_queued_seconds),
            ("requests_in_flight", "Requests in progress.", state.requests),
            ("requests_in_flight_limit", "Limit of requests in progress.", state.max_requests),
            (
                "segment_requests_in_flight",
                "Requests with granularity segment in progress.",
                state.recordings,
            ),
            (
                "segment_requests_in_flight_limit",
                "Limit of requests with granularity segment in progress.",
                state.max_recordings,
            ),
            ("streams", "Open streams.", state.streams),
            ("streams_limit", "Limit of open streams.", state.max_streams),
            ("worker_up", "Whether the worker is loaded, warm and not stuck (1) or not (0).", state.worker_up),
        ):
            yield GaugeMetricFamily(f"ser_{name}", text, value)
        memory = GaugeMetricFamily("ser_gpu_memory_bytes", "Device memory by kind.", labels=["kind"])
        for kind, size in state.memory.items():
            memory.add_metric([kind], size)
        yield memory


class Metrics:
    """The series, registered in `registry`; each application has its own instance.

    Attributes:
        http_requests: answered requests by `route` (the template, never the path), `method` and `code`.
        http_request_duration: seconds from the first byte of the request to the last of the answer, by `route`;
            without requests with granularity segment.
        stage_duration: seconds per request and `stage` (see `STAGES`).
        batch_size: clips per run of the model.
        batch_audio_seconds: audio seconds per run of the model.
        batch_padding_ratio: share of padded frames per run of the model.
        requests_rejected: refused requests, by `reason` (the code of the error).
        requests_cancelled: uploads and clips whose client disconnected before the answer.
        inference_failures: clips on which the model failed.
        worker_deaths: unexpected ends of the worker thread, including failed loads.
        audio_seconds: audio seconds that the model has scored.
        streams: closed streams, by close `code` (see `STREAM_CLOSES`).
        stream_events: messages sent on streams, by `type` (see `STREAM_EVENTS`).
        stream_skipped_windows: windows that were skipped because the previous one was not answered yet.
        stream_delay: seconds from the last sample of a live window to its answer.
        predictions: answers by the `label` with the highest score; each segment and each utterance of a stream counts.
        segments: utterances answered with granularity segment.
        segment_request_duration: seconds from the first byte of such a request to the last of its answer.
        cache_requests: files by the `result` of the lookup in the cache of answers (see `CACHE_RESULTS`).
        cache_evictions: cached answers removed to make room for newer ones.
        cache_bytes: memory of the cached answers.
        model_info: identity of the loaded model.
        model_load_seconds: seconds that loading and warming up the model took.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        # Otherwise every counter and histogram would also have a `_created` series, which Prometheus does not use. The
        # library has this switch only for the whole process.
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
            "ser_requests_rejected_total", "Refused requests, by reason.", ["reason"], registry=registry
        )
        self.requests_cancelled = Counter(
            "ser_requests_cancelled_total",
            "Uploads and clips whose client disconnected before the answer.",
            registry=registry,
        )
        self.inference_failures = Counter(
            "ser_inference_failures_total", "Clips on which the model failed.", registry=registry
        )
        self.worker_deaths = Counter(
            "ser_worker_deaths_total",
            "Unexpected ends of the worker thread, including failed loads.",
            registry=registry,
        )
        self.audio_seconds = Counter(
            "ser_audio_seconds_total", "Audio seconds that the model has scored.", registry=registry
        )
        self.predictions = Counter(
            "ser_predictions_total", "Answers by the label with the highest score.", ["label"], registry=registry
        )
        self.streams = Counter(
            "ser_streams_closed_total", "Closed streams, by close code.", ["code"], registry=registry
        )
        self.stream_events = Counter(
            "ser_stream_events_total", "Messages sent on streams.", ["type"], registry=registry
        )
        self.stream_skipped_windows = Counter(
            "ser_stream_skipped_windows_total",
            "Windows of streams skipped because the previous one was not answered yet.",
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
            "Files by result of the lookup in the cache of answers.",
            ["result"],
            registry=registry,
        )
        self.cache_evictions = Counter(
            "ser_cache_evictions_total", "Cached answers removed to make room for newer ones.", registry=registry
        )
        self.cache_bytes = Gauge("ser_cache_bytes", "Memory of the cached answers.", registry=registry)
        self.model_info = Info("ser_model", "The loaded model.", registry=registry)
        self.model_load_seconds = Gauge(
            "ser_model_load_seconds", "Time that loading and warming up the model took.", registry=registry
        )
        # The series must exist before their first event; otherwise rates and alerts would miss that event.
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
        """Report the state of an engine: `state` is called at every scrape, in the thread that answers it."""
        self.registry.register(_EngineCollector(state))
