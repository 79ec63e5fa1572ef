"""Metrics and traces from the reports of recognition and of the engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from opentelemetry.trace import NoOpTracer, Status, StatusCode, TracerProvider, get_current_span

from service import __version__
from service.errors import ServiceError
from service.observability.metrics import Metrics
from service.observability.observer import CacheResult, EngineState, Observer
from service.results import ModelInfo, Timings

_NAME = "emotion2vec-service"
_ENGINE_STAGES = ("queue", "preprocess", "inference")
_IDENTITY = ("id", "revision", "backend", "device", "dtype")


class Telemetry(Observer):
    """Updates the metrics, and makes spans below the one that FastAPI opens for a request.

    Args:
        metrics: the Prometheus series.
        tracer_provider: receives the spans; without it there are none. Only OpenTelemetry's API is used, not its SDK.
    """

    def __init__(self, metrics: Metrics, tracer_provider: TracerProvider | None = None) -> None:
        self._metrics = metrics
        self._tracer = NoOpTracer() if tracer_provider is None else tracer_provider.get_tracer(_NAME, __version__)

    def engine_created(self, state: Callable[[], EngineState]) -> None:
        """Read `state` at every scrape."""
        self._metrics.follow_engine(state)

    def model_loaded(self, model: ModelInfo, seconds: float) -> None:
        """Set identity and load time, and create the series of its labels."""
        self._metrics.model_load_seconds.set(seconds)
        self._metrics.model_info.info({key: getattr(model, key) for key in _IDENTITY})
        for index, label in enumerate(model.labels):
            if index not in model.masked:
                self._metrics.predictions.labels(label.en)

    def run_finished(self, clips: int, audio_seconds: float, padding_ratio: float) -> None:
        """Count a run of the model."""
        self._metrics.batch_size.observe(clips)
        self._metrics.batch_audio_seconds.observe(audio_seconds)
        self._metrics.batch_padding_ratio.observe(padding_ratio)
        self._metrics.audio_seconds.inc(audio_seconds)

    def clip_answered(self, timings: Timings) -> None:
        """Observe the stages of the engine."""
        for stage in _ENGINE_STAGES:
            self._metrics.stage_duration.labels(stage).observe(getattr(timings, stage))

    def clip_failed(self) -> None:
        """Count it."""
        self._metrics.inference_failures.inc()

    def worker_died(self) -> None:
        """Count it."""
        self._metrics.worker_deaths.inc()

    def request_refused(self, code: str) -> None:
        """Count it by its reason."""
        self._metrics.requests_rejected.labels(code).inc()

    def request_cancelled(self) -> None:
        """Count it."""
        self._metrics.requests_cancelled.inc()

    def file_decoded(self, seconds: float) -> None:
        """Observe the stage."""
        self._metrics.stage_duration.labels("decode").observe(seconds)

    def label_predicted(self, label: str) -> None:
        """Count it."""
        self._metrics.predictions.labels(label).inc()

    def segment_answered(self) -> None:
        """Count it."""
        self._metrics.segments.inc()

    def cache_looked_up(self, result: CacheResult) -> None:
        """Count it by its result."""
        self._metrics.cache_requests.labels(result).inc()

    def cache_changed(self, size: int) -> None:
        """Set the size."""
        self._metrics.cache_bytes.set(size)

    def cache_evicted(self) -> None:
        """Count it."""
        self._metrics.cache_evictions.inc()

    def window_answered(self, delay: float) -> None:
        """Observe the delay."""
        self._metrics.stream_delay.observe(delay)

    def windows_skipped(self, count: int) -> None:
        """Count them."""
        self._metrics.stream_skipped_windows.inc(count)

    @contextmanager
    def span(self, name: str) -> Iterator[None]:
        """A span for the block. Of an error it has the code or the class, but not the text."""
        with self._tracer.start_as_current_span(name, record_exception=False, set_status_on_exception=False) as opened:
            try:
                yield
            except BaseException as error:  # including the cancellation of the caller
                kind = error.code if isinstance(error, ServiceError) else type(error).__name__
                opened.set_attribute("error.type", kind)
                opened.set_status(Status(StatusCode.ERROR))
                raise

    def add_stage_spans(self, queued: int, timings: Timings) -> None:
        """Add a span for each stage of the engine, below the present one."""
        if not get_current_span().is_recording():
            return
        begin = queued
        for stage in _ENGINE_STAGES:
            end = begin + round(1e9 * getattr(timings, stage))
            self._tracer.start_span(stage, start_time=begin).end(end)
            begin = end
