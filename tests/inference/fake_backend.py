"""A backend without a model: answers are a fixed function of the samples, faults come on command.

Faults can be asked for by a clip's first sample (`FAIL`, `OUT_OF_MEMORY`, `KILL`, `HOLD`, `BREAK`), so they also travel
in an uploaded 32-bit float WAV, or by the attributes of `FakeControl`, which one test and all the backends that it
loads share.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
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
    """Noise of the given length whose first sample is `first`, one of the commands of this module perhaps."""
    samples = np.random.default_rng(seed).uniform(-0.5, 0.5, round(seconds * rate)).astype(np.float32)
    samples[0] = first
    return Clip(samples, rate, trim=trim)


def fingerprint(clip: Clip) -> str:
    return hashlib.sha256(clip.samples.tobytes()).hexdigest()[:16]


@dataclass
class FakeControl:
    """What a test tells its backends, and what they tell it.

    Attributes:
        info, limits: what the backends say of themselves.
        gate: while it is clear, loading waits.
        run_gate: while it is clear, every run waits.
        hold: what clips that begin with `HOLD` wait for.
        load_faults, warm_up_faults, run_faults: raised by the next calls, first to last.
        close_fault: raised by every close.
        device_memory: what `memory` answers.
        running: set as soon as a run has begun.
        holding: set as soon as a clip waits for `hold`, so that nothing else can happen to its run.
        loads: how often a backend was asked for, failed loads included.
        warm_ups, closes: how often backends were warmed up and closed.
        runs: fingerprints of the clips of every run that was begun.
        threads: the threads that called a backend, `load` included.
    """

    info: ModelInfo = field(default_factory=model_info)
    limits: BatchLimits = field(default_factory=lambda: BatchLimits(clips=8, seconds=60.0))
    gate: threading.Event = field(default_factory=threading.Event)
    run_gate: threading.Event = field(default_factory=threading.Event)
    hold: threading.Event = field(default_factory=threading.Event)
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
        """What `Engine` takes as its loader."""
        self.threads.add(threading.get_ident())
        self.gate.wait()
        self.loads += 1
        if self.load_faults:
            raise self.load_faults.pop(0)
        return FakeBackend(self)

    def release(self) -> None:
        """Let everything go that waits, so that no thread outlives its test."""
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

    def warm_up(self) -> None:
        self._control.threads.add(threading.get_ident())
        self._control.warm_ups += 1
        if self._control.warm_up_faults:
            raise self._control.warm_up_faults.pop(0)

    def run(self, clips: Sequence[Clip]) -> BatchOutput:
        control = self._control
        control.threads.add(threading.get_ident())
        control.runs.append([fingerprint(clip) for clip in clips])
        control.running.set()
        control.run_gate.wait()
        if control.run_faults:
            raise control.run_faults.pop(0)
        for clip in clips:
            _obey(clip.samples[0], control)
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
    """The answer to `clip`, alone or in any batch."""
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
    """First and past-the-last sample above silence, (0, 0) where there is none."""
    loud = np.flatnonzero(np.abs(clip.samples) > SILENCE)
    return (int(loud[0]), int(loud[-1]) + 1) if loud.size else (0, 0)


def _obey(command: np.float32, control: FakeControl) -> None:
    if command == FAIL:
        raise ValueError("the clip asked for a failure")
    if command == OUT_OF_MEMORY:
        raise MemoryError
    if command == KILL:
        raise SystemExit
    if command == BREAK:
        raise BackendBroken("the clip asked for it")
    if command == HOLD:
        control.holding.set()
        control.hold.wait()
