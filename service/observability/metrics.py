"""Every Prometheus series of the service.

Events are counted when they happen, through the attributes of `Metrics`. The state of the engine (queue, permits,
worker, device memory) is read only when Prometheus scrapes, so that requests do not spend time on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from service.errors import (
    CallerLimit,
    Draining,
    HostForbidden,
    KeyInvalid,
    KeyMissing,
    ModelLoading,
    OriginForbidden,
    QueueFull,
    RateLimited,
    StorageFull,
    StorageUnwritable,
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
            ("segment_requests_in_flight", "Requests with granularity segment in progress.", state.recordings),
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

    Attributes are named after their series, whose help texts describe them. Labels:
        route: the template of the path, never the path itself.
        reason: the code of the error that refused a request.
        code: of HTTP requests their status, of streams one of `STREAM_CLOSES`.
        stage, result, type: see `STAGES`, `CACHE_RESULTS` and `STREAM_EVENTS`.

    Requests with granularity segment count in `segment_request_duration`, not in `http_request_duration`.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        # Otherwise every counter and histogram would also have a `_created` series, which Prometheus does not use. The
        # library has this switch only for the whole process.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # it has no annotations
        self.registry = registry
        counter, gauge = partial(Counter, registry=registry), partial(Gauge, registry=registry)
        histogram = partial(Histogram, registry=registry)
        self.http_requests = counter("ser_http_requests_total", "Answered HTTP requests.", ["route", "method", "code"])
        self.http_request_duration = histogram(
            "ser_http_request_duration_seconds",
            "Time from an HTTP request to the end of its answer.",
            ["route"],
            buckets=_seconds_from(-3),
        )
        self.stage_duration = histogram(
            "ser_stage_duration_seconds",
            "Time that a request spent in a stage; preprocess and inference are those of its batch.",
            ["stage"],
            buckets=_seconds_from(-4),
        )
        self.batch_size = histogram(
            "ser_batch_size", "Clips per run of the model.", buckets=(1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
        )
        self.batch_audio_seconds = histogram(
            "ser_batch_audio_seconds",
            "Audio seconds per run of the model.",
            buckets=(0.5, 1, 2, 3, 5, 7.5, 10, 15, 20, 30, 45, 60, 90, 120, 180, 300, 600, 1200),
        )
        self.batch_padding_ratio = histogram(
            "ser_batch_padding_ratio",
            "Share of padded frames per run of the model.",
            buckets=(0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1),
        )
        self.requests_rejected = counter("ser_requests_rejected_total", "Refused requests, by reason.", ["reason"])
        self.requests_cancelled = counter(
            "ser_requests_cancelled_total", "Uploads and clips whose client disconnected before the answer."
        )
        self.inference_failures = counter("ser_inference_failures_total", "Clips on which the model failed.")
        self.worker_deaths = counter(
            "ser_worker_deaths_total", "Unexpected ends of the worker thread, including failed loads."
        )
        self.audio_seconds = counter("ser_audio_seconds_total", "Audio seconds that the model has scored.")
        self.predictions = counter("ser_predictions_total", "Answers by the label with the highest score.", ["label"])
        self.streams = counter("ser_streams_closed_total", "Closed streams, by close code.", ["code"])
        self.stream_events = counter("ser_stream_events_total", "Messages sent on streams.", ["type"])
        self.stream_skipped_windows = counter(
            "ser_stream_skipped_windows_total",
            "Windows of streams skipped because the previous one was not answered yet.",
        )
        self.stream_delay = histogram(
            "ser_stream_delay_seconds",
            "Time from the last sample of a live window to its answer.",
            buckets=_seconds_from(-3),
        )
        self.segments = counter("ser_segments_total", "Utterances answered with granularity segment.")
        self.segment_request_duration = histogram(
            "ser_segment_request_duration_seconds",
            "Time from a request with granularity segment to the end of its answer.",
            buckets=(0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600),
        )
        self.cache_requests = counter(
            "ser_cache_requests_total", "Files by result of the lookup in the cache of answers.", ["result"]
        )
        self.cache_evictions = counter(
            "ser_cache_evictions_total", "Cached answers removed to make room for newer ones."
        )
        self.cache_bytes = gauge("ser_cache_bytes", "Memory of the cached answers.")
        self.model_info = Info("ser_model", "The loaded model.", registry=registry)
        self.model_load_seconds = gauge("ser_model_load_seconds", "Time that loading and warming up the model took.")
        # The series must exist before their first event; otherwise rates and alerts would miss that event.
        for refusal in (
            QueueFull,
            CallerLimit,
            ModelLoading,
            Draining,
            StorageFull,
            StorageUnwritable,
            WorkerDead,
            KeyMissing,
            KeyInvalid,
            RateLimited,
            TooManyStreams,
            OriginForbidden,
            HostForbidden,
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
