"""What recognition reports about its progress, to whoever counts or traces it.

Recognition and the inference engine call an `Observer`. The server gives them `service.observability.telemetry`, which
counts with Prometheus and traces with OpenTelemetry; commands give them this class, which does nothing and imports
neither.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

from service.results import ModelInfo, Timings

CacheResult = Literal["hit", "miss", "bypass"]
"""What the cache of answers did for a file; `bypass`: its request did not want a cached answer."""


@dataclass(frozen=True, slots=True)
class EngineState:
    """A snapshot of the engine.

    Attributes:
        queued_clips, max_queued_clips: clips that wait for the worker, and how many may.
        queued_seconds, max_queued_seconds: their audio seconds, and how many may wait.
        requests, max_requests: requests that hold a permit, and how many may.
        recordings, max_recordings: of these, requests with granularity segment.
        streams, max_streams: streams that hold a permit of their own kind, and how many may.
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
    """Is told what happens. Every method returns at once; those without effect here are implemented by subclasses."""

    def engine_created(self, state: Callable[[], EngineState]) -> None:
        """An engine exists; `state` may be called from any thread at any time."""

    def model_loaded(self, model: ModelInfo, seconds: float) -> None:
        """A model is loaded and warm, which took `seconds`."""

    def run_finished(self, clips: int, audio_seconds: float, padding_ratio: float) -> None:
        """The model ran on `clips` clips of `audio_seconds` in all; `padding_ratio` of the frames were padding."""

    def clip_answered(self, timings: Timings) -> None:
        """A clip got its answer; `timings` has the stages of the engine."""

    def clip_failed(self) -> None:
        """The model failed on a clip."""

    def worker_died(self) -> None:
        """The worker thread ended without having been asked to; a failed load counts as well."""

    def request_refused(self, code: str) -> None:
        """A request was refused; `code` is that of the error."""

    def request_cancelled(self) -> None:
        """A caller gave up before its answer."""

    def file_decoded(self, seconds: float) -> None:
        """A file was decoded, which took `seconds`, waiting for a thread included."""

    def label_predicted(self, label: str) -> None:
        """An answer has this label (its English name) as the most likely one."""

    def segment_answered(self) -> None:
        """An utterance of a long recording was answered."""

    def cache_asked(self, result: CacheResult) -> None:
        """The cache of answers was asked about a file, or bypassed."""

    def cache_changed(self, size: int) -> None:
        """The answers in the cache take `size` bytes now."""

    def cache_evicted(self) -> None:
        """An answer left the cache for a newer one."""

    def window_answered(self, delay: float) -> None:
        """A window of live audio was answered, `delay` seconds after its last sample."""

    def windows_skipped(self, count: int) -> None:
        """So many windows of live audio were left out, because the one before was still being answered."""

    def span(self, name: str) -> AbstractContextManager[None]:
        """A trace span around a step."""
        return nullcontext()

    def add_stage_spans(self, queued: int, timings: Timings) -> None:
        """Add trace spans for the stages that a clip went through in the engine, below the present span.

        Args:
            queued: when the clip was queued, in nanoseconds of `time.time_ns`.
            timings: the stages of the engine, which follow one another without a gap.
        """
