"""The CPU backend: ONNX Runtime on a prepared model. Nothing here imports torch.

Clips run one by one: on a CPU, padding clips of mixed lengths to one batch loses more than it gains, and one clip
already keeps every core busy.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import onnxruntime

from service.errors import ModelNotFound
from service.inference.backend import BatchLimits
from service.model.manifest import Manifest
from service.preprocess import host
from service.results import SAMPLING_RATE, BatchOutput, Clip, ClipOutput, Floats, ModelInfo, Span

LIMITS = BatchLimits(clips=8, seconds=10.0)
"""Small, since clips run one after another: a batch only saves hand-overs between threads."""

_SHRINK_ABOVE = 30.0
"""Seconds from which on a clip's working memory is given back after the run."""

_NORM_EPS = 1e-5


class OnnxBackend:
    """A `service.inference.backend.Backend` on ONNX Runtime.

    Args:
        directory: a prepared model.
        manifest: its manifest.
        dtype: `fp32`, or `int8` where the model was prepared with it.
        threads: of one inference; 0 takes every core that this process may use.
        few: whether only a few clips will be answered. Then weights are used as they lie in the file: nothing is
            packed at the start, and each clip takes somewhat longer.

    Raises:
        ModelNotFound: if the model was not prepared in this precision.
    """

    def __init__(
        self, directory: Path, manifest: Manifest, *, dtype: Literal["fp32", "int8"], threads: int, few: bool = False
    ) -> None:
        path = directory / f"model.{dtype}.onnx"
        if not path.is_file():
            raise ModelNotFound(f"{manifest.id} was not prepared in {dtype}; prepare it again.")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or len(os.sched_getaffinity(0))
        options.inter_op_num_threads = 1
        # Idle threads must not burn the cores that the event loop and the decoders need between two runs.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        # Packing on all threads halves the time to load. All weights are then mapped at once, but those pages are the
        # file's: the system takes them back when it needs them.
        options.add_session_config_entry(
            "session.disable_prepacking" if few else "session.prepack.enable_parallel", "1"
        )
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._shrink = onnxruntime.RunOptions()
        self._shrink.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        self._normalize = manifest.config.normalize
        self._info = manifest.info(backend="onnx", device="cpu", dtype=dtype)

    @property
    def info(self) -> ModelInfo:
        """Which model answers."""
        return self._info

    @property
    def limits(self) -> BatchLimits:
        """The largest batch."""
        return LIMITS

    def warm_up(self) -> None:
        """Two runs: the first allocates, the second is as fast as any."""
        noise = np.random.default_rng(0).standard_normal(2 * SAMPLING_RATE).astype(np.float32)
        for _ in range(2):
            self.run([Clip(noise, SAMPLING_RATE)])

    def run(self, clips: Sequence[Clip]) -> BatchOutput:
        """Answer each clip by itself; see `Backend.run`."""
        outputs, preprocess, inference = [], 0.0, 0.0
        for clip in clips:
            began = time.perf_counter()
            samples, speech, scored = self._prepare(clip)
            prepared = time.perf_counter()
            outputs.append(self._infer(samples, speech, scored, clip.frame_embeddings))
            preprocess += prepared - began
            inference += time.perf_counter() - prepared
        return BatchOutput(tuple(outputs), preprocess, inference)

    def _prepare(self, clip: Clip) -> tuple[Floats, Span | None, Span]:
        """Bring a clip to 16 kHz, trim it, and normalise what is left."""
        samples = host.resample(clip.samples, clip.sampling_rate)
        start, end = host.speech_bounds(samples[np.newaxis], np.array([samples.size]))[0].tolist()
        speech = Span(start / SAMPLING_RATE, end / SAMPLING_RATE) if end else None
        if speech is None or not clip.trim:
            start, end = 0, samples.size
        samples = samples[start:end]
        if self._normalize:
            # Moments in float64: over a long clip float32 sums would drift from the reference.
            centred = samples.astype(np.float64)
            mean = centred.mean()
            centred -= mean
            scale = 1.0 / np.sqrt(centred.dot(centred) / centred.size + _NORM_EPS)
            samples = samples - np.float32(mean)
            samples *= np.float32(scale)
        return samples, speech, Span(start / SAMPLING_RATE, end / SAMPLING_RATE)

    def _infer(self, samples: Floats, speech: Span | None, scored: Span, keep_frames: bool) -> ClipOutput:
        options = self._shrink if samples.size > _SHRINK_ABOVE * SAMPLING_RATE else None
        features, logits = self._session.run(["features", "logits"], {"waveform": samples}, options)
        embedding = features.mean(axis=0, dtype=np.float64).astype(np.float32)
        return ClipOutput(logits, embedding, features if keep_frames else None, speech, scored)

    def memory(self) -> dict[str, int]:
        """Empty: there is no device memory."""
        return {}

    def close(self) -> None:
        """Release the session and its memory."""
        del self._session
