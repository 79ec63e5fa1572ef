"""The CPU backend: ONNX Runtime on a prepared model. It does not import torch.

A clip of two seconds already keeps every core busy, so it runs alone. Shorter clips share a run, laid one after
another: padding them to one length would cost more than it saves. Sharing changes no answer by more than rounding; on
x86-64 it changes no bit, since the kernels there add up a row's products with packed weights in an order that does not
depend on the number of rows. In INT8 each row has its own scale, so that no clip changes how another one is rounded.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnxruntime

from service.cores import usable_cores
from service.errors import ModelNotFound
from service.inference.backend import BatchLimits
from service.model.manifest import Manifest
from service.model.normalize import normalized
from service.model.onnx.inputs import lay_out
from service.preprocess import resample_trim
from service.results import SAMPLING_RATE, BatchOutput, Clip, ClipOutput, Floats, Span

logger = logging.getLogger(__name__)

LIMITS = BatchLimits(clips=8, seconds=10.0)
"""Small, because a batch is answered when its last clip is done, and larger batches are no faster."""

SHARING_UP_TO = 1.5
"""Seconds up to which clips share a run; longer ones gain nothing by it, as `loadtests.bench.shared_runs` shows."""

SHARED_SECONDS = 5.0
"""The most seconds over all clips of a shared run; more rows are no faster."""

_SHRINK_ABOVE = 30.0
"""Seconds above which the memory arena is shrunk after the run of a clip, which is alone in its batch."""


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A clip as the model takes it (`samples`), and fields of its answer."""

    samples: Floats
    speech: Span | None
    scored: Span
    frame_embeddings: bool


def runs(lengths: Sequence[int], sharing_up_to: float) -> list[list[int]]:
    """Group clips into runs of the model.

    Args:
        lengths: of the clips, in samples at 16 kHz.
        sharing_up_to: seconds up to which clips may share a run.

    Returns:
        For each run, the indices of its clips.
    """
    shared: list[list[int]] = [[]]
    single, total = [], 0
    for index, length in enumerate(lengths):
        if length > sharing_up_to * SAMPLING_RATE:
            single.append([index])
            continue
        total += length
        if total > SHARED_SECONDS * SAMPLING_RATE:
            shared.append([])
            total = length
        shared[-1].append(index)
    return [run for run in shared if run] + single


class OnnxBackend:
    """A `service.inference.backend.Backend` on ONNX Runtime.

    Args:
        directory: a prepared model.
        manifest: its manifest.
        dtype: `fp32`, or `int8` where the model was prepared with it.
        threads: of one inference; 0 takes all cores that this process may use.
        sharing_up_to: seconds up to which clips of a batch share a run, with packed weights.
        few: whether only a few clips will be run. The graph is then not optimised, weights are not packed and the model
            is not warmed up, so that the start is faster and each run slower.

    Raises:
        ModelNotFound: if the model was not prepared in this precision.
    """

    limits = LIMITS

    def __init__(
        self,
        directory: Path,
        manifest: Manifest,
        *,
        dtype: Literal["fp32", "int8"],
        threads: int,
        sharing_up_to: float = SHARING_UP_TO,
        few: bool = False,
    ) -> None:
        path = directory / f"model.{dtype}.onnx"
        if not path.is_file():
            raise ModelNotFound(f"{manifest.id} was not prepared in {dtype}; prepare it again.")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or usable_cores()
        options.inter_op_num_threads = 1
        # Idle threads must not spin on cores that the event loop and the decoders need between two runs.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        # Packing on all threads halves the time to load. It reads all weights, into pages that the kernel can free.
        options.add_session_config_entry(
            "session.disable_prepacking" if few else "session.prepack.enable_parallel", "1"
        )
        if few:
            # Optimising takes longer than loading and saves no time, as the graph is built without superfluous nodes.
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._config = manifest.config
        # With unpacked weights the order of summation depends on the number of rows.
        self._sharing_up_to = 0.0 if few else sharing_up_to
        self._few = few
        self.info = manifest.info(backend="onnx", device="cpu", dtype=dtype)
        if (error := self.info.int8_error) is not None:
            logger.log(logging.WARNING if error.is_large else logging.INFO, "%s in INT8: %s", manifest.id, error)

    def warm_up(self) -> float | None:
        """Two runs: the first allocates memory, the second runs at full speed. Nothing if few clips will be run."""
        if self._few:
            return None
        noise = np.random.default_rng(0).standard_normal(2 * SAMPLING_RATE).astype(np.float32)
        clip = Clip(noise, SAMPLING_RATE)
        self.run([clip])
        return self.run([clip]).seconds / clip.duration

    def run(self, clips: Sequence[Clip], cancellation: Future[None] | None = None) -> BatchOutput:
        """Answer a batch; see `Backend.run`. Short clips share runs.

        Cancelling ends it before the next node of the graph: within one chunk of the front end or of attention.
        """
        began = time.perf_counter()
        prepared = [self._prepare(clip) for clip in clips]
        ready = time.perf_counter()
        options = _run_options(prepared, cancellation)
        outputs: dict[int, ClipOutput] = {}
        for indices in runs([each.samples.size for each in prepared], self._sharing_up_to):
            outputs |= zip(indices, self._infer([prepared[index] for index in indices], options), strict=True)
        inference = time.perf_counter() - ready
        return BatchOutput(tuple(outputs[index] for index in range(len(clips))), ready - began, inference)

    def _prepare(self, clip: Clip) -> _Prepared:
        """Bring a clip to 16 kHz, trim it, and normalise what is left."""
        samples = resample_trim.resample(clip.samples, clip.sampling_rate)
        start, end = resample_trim.speech_bounds(samples[np.newaxis], np.array([samples.size]))[0].tolist()
        speech = Span(start / SAMPLING_RATE, end / SAMPLING_RATE) if end else None
        if speech is None or not clip.trim:
            start, end = 0, samples.size
        samples = samples[start:end]
        if self._config.normalize:
            samples = normalized(samples)
        return _Prepared(samples, speech, Span(start / SAMPLING_RATE, end / SAMPLING_RATE), clip.frame_embeddings)

    def _infer(self, clips: Sequence[_Prepared], options: onnxruntime.RunOptions) -> Iterator[ClipOutput]:
        inputs = lay_out([clip.samples for clip in clips], self._config)
        features, logits = self._session.run(["features", "logits"], inputs.tensors, options)
        for clip, frames in zip(clips, inputs.frames, strict=True):
            embedding = features[frames].mean(axis=0, dtype=np.float64).astype(np.float32)
            frame_embeddings = features[frames] if clip.frame_embeddings else None
            yield ClipOutput(logits[frames], embedding, frame_embeddings, clip.speech, clip.scored)

    def memory(self) -> dict[str, int]:
        """Empty: the CPU has no device memory."""
        return {}

    def close(self) -> None:
        """Release the session and its memory."""
        del self._session


def _run_options(clips: Sequence[_Prepared], cancellation: Future[None] | None) -> onnxruntime.RunOptions:
    """Options of all runs of a batch; once `cancellation` is cancelled, ONNX Runtime ends them."""
    options = onnxruntime.RunOptions()
    options.log_severity_level = 4  # every error is raised as well, and the end of a run is none
    if max(clip.samples.size for clip in clips) > _SHRINK_ABOVE * SAMPLING_RATE:
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")

    def terminate(_: Future[None]) -> None:
        options.terminate = True

    if cancellation is not None:
        cancellation.add_done_callback(terminate)
    return options
