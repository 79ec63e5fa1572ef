"""The reports of recognition and of the inference engine, for metrics and traces.

The server passes `service.observability.telemetry`, which uses Prometheus and OpenTelemetry. Commands pass this class,
which does nothing and imports neither.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

from service.results import ModelInfo, Timings

CacheResult = Literal["hit", "miss", "bypass"]
"""The result of a lookup in the cache of answers; `bypass` if the request refused a cached answer."""


@dataclass(frozen=True, slots=True)
class EngineState:
    """The load of the engine at one time.

    Attributes:
        queued_clips, max_queued_clips: clips that wait for the worker, and their limit.
        queued_seconds, max_queued_seconds: their audio seconds, and the limit.
        requests, max_requests: requests that have a permit, and their limit.
        recordings, max_recordings: of these, requests with granularity segment, and their limit.
        streams, max_streams: streams that have a permit, and their limit.
        worker_up: whether the worker is loaded, warm and not stuck.
        memory: bytes of device memory by kind.
    """

    queued_clips: int
    max_queued_clips: int
    queued_seconds: float
    max_queued_seconds: float
    requests: int
    max_requests: int
    recordings: int
    max_recordings: int
    streams: int
    max_streams: int
    worker_up: bool
    memory: Mapping[str, int]


class Observer:
    """Receives the reports; this class ignores them. Its methods do not block."""

    def engine_created(self, state: Callable[[], EngineState]) -> None:
        """An engine was created; `state` may be called from any thread."""

    def model_loaded(self, model: ModelInfo, seconds: float) -> None:
        """A model is loaded and warm, which took `seconds`."""

    def run_finished(self, clips: int, audio_seconds: float, padding_ratio: float) -> None:
        """The model ran on `clips` clips with `audio_seconds` in all; `padding_ratio` of the frames were padding."""

    def clip_answered(self, timings: Timings) -> None:
        """A caller got its answer; `timings` has the stages of the engine."""

    def clip_failed(self) -> None:
        """The model failed on a clip."""

    def worker_died(self) -> None:
        """The worker thread ended unexpectedly, or failed to load the model."""

    def request_refused(self, code: str) -> None:
        """A request was refused with the error `code`."""

    def request_cancelled(self) -> None:
        """A caller was cancelled before its answer."""

    def file_decoded(self, seconds: float) -> None:
        """A file was decoded, which took `seconds` including the wait for a thread."""

    def label_predicted(self, label: str) -> None:
        """The most likely label of an answer is `label` (the English name)."""

    def segment_answered(self) -> None:
        """An utterance of a long recording was scored."""

    def cache_looked_up(self, result: CacheResult) -> None:
        """A file was looked up in the cache of answers, or the cache was bypassed."""

    def cache_changed(self, size: int) -> None:
        """The answers in the cache take `size` bytes now."""

    def cache_evicted(self) -> None:
        """An answer was evicted from the cache."""

    def window_answered(self, delay: float) -> None:
        """A window of a stream was answered `delay` seconds after its last sample."""

    def windows_skipped(self, count: int) -> None:
        """`count` windows of a stream were skipped."""

    def span(self, name: str) -> AbstractContextManager[None]:
        """A trace span for the block."""
        return nullcontext()

    def add_stage_spans(self, queued: int, timings: Timings) -> None:
        """Add trace spans for the stages of a clip in the engine, below the present span.

        Args:
            queued: when the clip was queued, in nanoseconds of `time.time_ns`.
            timings: the stages of the engine, which are consecutive.
        """
