"""A backend without a model: answers are a fixed function of the samples, and faults are injected.

A fault is requested by a clip's first sample (`FAIL`, `OUT_OF_MEMORY`, `KILL`, `HOLD`, `BREAK`), which also works in an
uploaded 32-bit float WAV, or by the attributes of `FakeControl`, which a test shares with all backends that it loads.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

from service.errors import BackendBroken
from service.inference.backend import BatchLimits
from service.results import (
    FRAME_HOP,
    MIN_SAMPLES,
    SAMPLING_RATE,
    BatchOutput,
    Clip,
    ClipOutput,
    Floats,
    Label,
    ModelInfo,
    Span,
)

FAIL = 1001.0
OUT_OF_MEMORY = 1002.0
KILL = 1003.0
HOLD = 1004.0
BREAK = 1005.0

SILENCE = 10 ** (-70 / 20)
WIDTH = 8
PREPROCESS_SECONDS = 0.001
INFERENCE_SECONDS = 0.002

LABELS = (
    Label("angry", "生气", "生气/angry"),
    Label("disgusted", "厌恶", "厌恶/disgusted"),
    Label("fearful", "恐惧", "恐惧/fearful"),
    Label("happy", "开心", "开心/happy"),
    Label("neutral", "中立", "中立/neutral"),
    Label("other", "其他", "其他/other"),
    Label("sad", "难过", "难过/sad"),
    Label("surprised", "吃惊", "吃惊/surprised"),
    Label("unknown", "未知", "<unk>"),
)


def model_info(labels: tuple[Label, ...] = LABELS, masked: frozenset[int] = frozenset()) -> ModelInfo:
    return ModelInfo(
        id="fake",
        revision="1",
        backend="fake",
        device="cpu",
        dtype="float32",
        labels=labels,
        masked=masked,
        embedding_size=WIDTH,
        demonstration=True,
    )


def make_clip(
    seconds: float = 0.1, first: float = 0.5, *, rate: int = SAMPLING_RATE, seed: int = 0, trim: bool = True
) -> Clip:
    """Noise of the given length; its first sample is `first`, which may request a fault."""
    samples = np.random.default_rng(seed).uniform(-0.5, 0.5, round(seconds * rate)).astype(np.float32)
    samples[0] = first
    return Clip(samples, rate, trim=trim)


def fingerprint(clip: Clip) -> str:
    return hashlib.sha256(clip.samples.tobytes()).hexdigest()[:16]


@dataclass
class FakeControl:
    """Injects faults into the fake backends of a test, and records their calls.

    Attributes:
        info, limits: attributes of the backends.
        gate: while it is clear, loading waits.
        run_gate: while it is clear, every run waits.
        hold: the event that clips which begin with `HOLD` wait for.
        endable: whether a run that is cancelled ends at once, with an error and `hold` set; else it runs to its end.
        cost: returned by `warm_up`.
        load_faults, warm_up_faults, run_faults: raised by the next calls, first to last.
        close_fault: raised by every close.
        device_memory: returned by `memory`.
        running: set when a run begins.
        holding: set when a clip waits for `hold`.
        loads: calls of `load`, including failed ones.
        warm_ups, closes: calls of these methods.
        runs: fingerprints of the clips of every run that began.
        threads: the threads that called `load` or a backend.
    """

    info: ModelInfo = field(default_factory=model_info)
    limits: BatchLimits = field(default_factory=lambda: BatchLimits(clips=8, seconds=60.0))
    gate: threading.Event = field(default_factory=threading.Event)
    run_gate: threading.Event = field(default_factory=threading.Event)
    hold: threading.Event = field(default_factory=threading.Event)
    endable: bool = False
    cost: float | None = None
    load_faults: list[BaseException] = field(default_factory=list)
    warm_up_faults: list[BaseException] = field(default_factory=list)
    run_faults: list[BaseException] = field(default_factory=list)
    close_fault: Exception | None = None
    device_memory: dict[str, int] = field(default_factory=dict)
    running: threading.Event = field(default_factory=threading.Event)
    holding: threading.Event = field(default_factory=threading.Event)
    loads: int = 0
    closes: int = 0
    warm_ups: int = 0
    runs: list[list[str]] = field(default_factory=list)
    threads: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.gate.set()
        self.run_gate.set()

    def load(self) -> FakeBackend:
        """Load a backend; the argument `load` of an `Engine`."""
        self.threads.add(threading.get_ident())
        self.gate.wait()
        self.loads += 1
        if self.load_faults:
            raise self.load_faults.pop(0)
        return FakeBackend(self)

    def release(self) -> None:
        """End all waits, so that no thread outlives its test."""
        self.gate.set()
        self.run_gate.set()
        self.hold.set()


class FakeBackend:
    """Implements `service.inference.backend.Backend`."""

    def __init__(self, control: FakeControl) -> None:
        self._control = control

    @property
    def info(self) -> ModelInfo:
        return self._control.info

    @property
    def limits(self) -> BatchLimits:
        return self._control.limits

    def warm_up(self) -> float | None:
        self._control.threads.add(threading.get_ident())
        self._control.warm_ups += 1
        if self._control.warm_up_faults:
            raise self._control.warm_up_faults.pop(0)
        return self._control.cost

    def run(self, clips: Sequence[Clip], cancellation: Future[None] | None = None) -> BatchOutput:
        control = self._control
        if control.endable and cancellation is not None:
            cancellation.add_done_callback(lambda _: control.hold.set())
        control.threads.add(threading.get_ident())
        control.runs.append([fingerprint(clip) for clip in clips])
        control.running.set()
        control.run_gate.wait()
        if control.run_faults:
            raise control.run_faults.pop(0)
        for clip in clips:
            _inject_fault(clip.samples[0], control)
        if control.endable and cancellation is not None and cancellation.cancelled():
            raise RuntimeError("ended on request")
        outputs = tuple(answer(clip, len(control.info.labels)) for clip in clips)
        return BatchOutput(outputs, PREPROCESS_SECONDS, INFERENCE_SECONDS)

    def memory(self) -> dict[str, int]:
        return dict(self._control.device_memory)

    def close(self) -> None:
        self._control.threads.add(threading.get_ident())
        self._control.closes += 1
        if self._control.close_fault is not None:
            raise self._control.close_fault


def answer(clip: Clip, labels: int = len(LABELS)) -> ClipOutput:
    """The output for `clip`, which does not depend on its batch."""
    first, last = _loud(clip)
    shortest = MIN_SAMPLES * clip.sampling_rate / SAMPLING_RATE
    speech = Span(first / clip.sampling_rate, last / clip.sampling_rate) if last else None
    trimmed = clip.trim and last - first >= shortest
    begin, end = (first, last) if trimmed else (0, len(clip.samples))
    at_16k = (end - begin) * SAMPLING_RATE // clip.sampling_rate
    frames = max(1, (at_16k - MIN_SAMPLES) // FRAME_HOP + 1)
    bounds = np.arange(frames) * (end - begin) // frames
    levels = np.add.reduceat(clip.samples[begin:end], bounds, dtype=np.float64) / ((end - begin) / frames)
    logits = (2 * np.cos(np.outer(levels, np.arange(1, labels + 1)) * 20)).astype(np.float32)
    vectors = np.sin(np.outer(levels, np.arange(1, WIDTH + 1)) * 10).astype(np.float32)
    mean: Floats = vectors.mean(axis=0)
    return ClipOutput(
        logits=logits,
        embedding=mean,
        frame_embeddings=vectors if clip.frame_embeddings else None,
        speech=speech,
        scored=Span(begin / clip.sampling_rate, end / clip.sampling_rate),
    )


def _loud(clip: Clip) -> tuple[int, int]:
    """The first sample above silence and the one after the last, (0, 0) where there is none."""
    loud = np.flatnonzero(np.abs(clip.samples) > SILENCE)
    return (int(loud[0]), int(loud[-1]) + 1) if loud.size else (0, 0)


def _inject_fault(first: np.float32, control: FakeControl) -> None:
    if first == FAIL:
        raise ValueError("a failure on request")
    if first == OUT_OF_MEMORY:
        raise MemoryError
    if first == KILL:
        raise SystemExit
    if first == BREAK:
        raise BackendBroken("broken on request")
    if first == HOLD:
        control.holding.set()
        control.hold.wait()
