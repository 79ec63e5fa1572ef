"""The torch backend: CUDA in half precision and compiled; on the CPU the FP32 cross-check of the ONNX backend.

    upload ▶ resample ▶ find speech ▶ group by length ▶ normalise, pad, encode ▶ download

Everything from resampling on runs on the device. Two copies come back: the bounds of speech, and the results.
"""

from __future__ import annotations

import gc
import logging
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from service.cores import usable_cores
from service.errors import BackendBroken, SettingsInvalid
from service.inference.backend import BatchLimits
from service.inference.backends.buckets import Group, bucketed, one_by_one, program_shapes
from service.inference.backends.compile_options import CompileOptions
from service.inference.backends.compiled_encoder import CompiledEncoder, CompileFailed
from service.inference.backends.cuda import open_device, usable
from service.inference.backends.precision import DTYPES, Dtype, load_encoder
from service.inference.backends.transfer import Transfer
from service.model.manifest import WEIGHTS, Manifest
from service.model.network.encoder import Encoded
from service.model.synthetic_speech import speech_like
from service.preprocess.resample_trim_torch import resample, speech_bounds
from service.results import SAMPLING_RATE, BatchOutput, Clip, ClipOutput, Floats, Span

logger = logging.getLogger(__name__)

CUDA_LIMITS = BatchLimits(clips=32, seconds=320.0)
CPU_LIMITS = BatchLimits(clips=8, seconds=10.0)
"""On the CPU clips run one by one; a batch only saves hand-overs between threads."""

_COMMON_RATES = (8000, 44_100, 48_000)
"""Sampling rates whose resampling filters the warm-up makes."""


class TorchBackend:
    """A `service.inference.backend.Backend` on torch.

    Args:
        directory: a prepared model.
        manifest: its manifest.
        device: `cpu`, `cuda` or `cuda:N`.
        dtype: `auto` is FP32 on the CPU; on CUDA the first of FP16, BF16 and FP32 that keeps the model's scores.
        threads: on the CPU; 0 leaves the number to torch, within the cores that this process may use.
        compile_options: whether the warm-up compiles the encoder, and for which batches.

    Raises:
        SettingsInvalid: if there is no such device, or the precision asked for changes the model's scores.
        CheckpointInvalid: if the weights are not those that the manifest describes.
    """

    def __init__(
        self,
        directory: Path,
        manifest: Manifest,
        *,
        device: str = "cpu",
        dtype: Dtype = "auto",
        threads: int = 0,
        compile_options: CompileOptions = CompileOptions(),  # noqa: B008 - immutable
    ) -> None:
        self._device = open_device(device)
        self._cuda = self._device.type == "cuda"
        if not self._cuda:
            torch.set_num_threads(threads or min(torch.get_num_threads(), usable_cores()))
        self._config = manifest.config
        encoder, precision = load_encoder(directory / WEIGHTS, manifest, self._device, dtype)
        if self._cuda:
            torch.cuda.empty_cache()  # the weights in precisions that were tried and dropped
        self._dtype = DTYPES[precision]
        self._compile_options = compile_options
        compiles = compile_options.wanted(self._device.type)
        extra = self._config.num_extra_tokens
        shapes = program_shapes(extra, clips=compile_options.clips, seconds=compile_options.seconds) if compiles else []
        self._encoder = CompiledEncoder(encoder, self._config, shapes)
        self._padded = self._cuda or compiles
        self.limits = CUDA_LIMITS if self._cuda else CPU_LIMITS
        self.info = manifest.info(backend="torch", device=device, dtype=precision)

    def warm_up(self) -> float | None:
        """Run the largest batch, then compile, then run one clip of each common sampling rate.

        Raises:
            SettingsInvalid: if compilation was set to `on` and fails; with `auto` a warning is logged instead.
            BackendBroken: if the device fails meanwhile.
        """
        limits = self.limits
        self.run([Clip(speech_like(limits.seconds / limits.clips), SAMPLING_RATE)] * limits.clips)
        if self._compile_options.wanted(self._device.type):
            self._compile()
        clips = [Clip(speech_like(2.0), rate) for rate in _COMMON_RATES]
        taken = [self.run([clip]).seconds for clip in clips]
        return taken[-1] / clips[-1].duration

    def run(self, clips: Sequence[Clip], cancellation: Future[None] | None = None) -> BatchOutput:
        """Answer a batch; see `Backend.run`. It is not ended early, since kernels that are queued cannot be recalled.

        Raises:
            MemoryError: if the device has too little memory for this batch; the batch's memory is freed.
            BackendBroken: if the device does not work any more.
        """
        try:
            with torch.no_grad():
                return self._run(clips)
        except torch.OutOfMemoryError as error:
            reason = str(error)
        except Exception as error:
            if usable(self._device):
                raise
            raise BackendBroken(f"{self.info.device} does not work any more") from error
        # Outside the handler, since the exception being handled refers to frames that hold the batch's memory.
        torch.cuda.empty_cache()
        raise MemoryError(f"{len(clips)} clips do not fit: {reason}")

    def _run(self, clips: Sequence[Clip]) -> BatchOutput:
        began = time.perf_counter()
        transfer = Transfer(self._device)
        waveforms = self._upload(transfer, clips)
        bounds = self._speech(transfer, waveforms)
        # Where a clip is trimmed, the bounds decide all later shapes, so they are fetched now; else with the results.
        trim = any(clip.trim for clip in clips)
        speech = transfer.to_host(bounds).tolist() if trim else []
        scored = [
            speech[index] if clip.trim and speech[index][1] else (0, waveform.shape[0])
            for index, (clip, waveform) in enumerate(zip(clips, waveforms, strict=True))
        ]
        prepared = time.perf_counter()
        frames = [self._config.frames(end - start) for start, end in scored]
        extra = self._config.num_extra_tokens
        groups = bucketed(frames, extra, self._encoder.programs) if self._padded else one_by_one(frames)
        answers = [self._encode(transfer, group, waveforms, scored, frames) for group in groups]
        results = self._download(transfer, clips, groups, answers, frames)
        speech = speech or transfer.to_host(bounds).tolist()
        outputs = tuple(
            ClipOutput(*results[index], speech=_span(found) if found[1] else None, scored=_span(scored[index]))
            for index, found in enumerate(speech)
        )
        return BatchOutput(
            clips=outputs,
            preprocess_seconds=prepared - began,
            inference_seconds=time.perf_counter() - prepared,
            padding_ratio=1.0 - sum(frames) / sum(group.shape.area for group in groups),
        )

    def memory(self) -> dict[str, int]:
        """Bytes of device memory by kind; empty on the CPU."""
        if not self._cuda:
            return {}
        return {
            "allocated": torch.cuda.memory_allocated(self._device),
            "reserved": torch.cuda.memory_reserved(self._device),
            "peak": torch.cuda.max_memory_allocated(self._device),
            "total": torch.cuda.get_device_properties(self._device).total_memory,
        }

    def close(self) -> None:
        """Release the weights, the programs, and the memory that torch caches."""
        self._encoder.close()
        del self._encoder
        if self._cuda:
            gc.collect()  # compiled programs leave reference cycles that hold device memory
            torch.cuda.empty_cache()

    def _compile(self) -> None:
        if self._cuda:
            torch.cuda.empty_cache()  # programs have a memory pool of their own and cannot use what torch caches
        try:
            self._encoder.compile()
        except CompileFailed as error:
            if not usable(self._device):
                raise BackendBroken(f"{self.info.device} does not work any more") from error
            logger.warning("%s runs without compiled programs: %s", self.info.id, error, exc_info=error)
            required = self._compile_options.choice == "on"
        else:
            return
        self._encoder.close()  # outside the handler, where the exception no longer holds the programs' memory
        if required:
            raise SettingsInvalid(
                "the model cannot be compiled; the log says why. With compile=off it runs uncompiled."
            )

    def _upload(self, transfer: Transfer, clips: Sequence[Clip]) -> list[Tensor]:
        """Copy all clips to the device in one transfer, and resample them there."""
        sizes = [clip.samples.shape[0] for clip in clips]
        host = transfer.buffer(sum(sizes))
        np.concatenate([clip.samples for clip in clips], out=host.numpy())
        parts = torch.split(transfer.to_device(host), sizes)
        return [resample(part, clip.sampling_rate) for part, clip in zip(parts, clips, strict=True)]

    def _speech(self, transfer: Transfer, waveforms: Sequence[Tensor]) -> Tensor:
        """Start and end of speech in samples, (0, 0) for silent clips: int64 (clip, 2), on the device."""
        # Only clips whose lengths are within a factor of two are padded together, so that padding stays bounded.
        alike: dict[int, list[int]] = defaultdict(list)
        for index, waveform in enumerate(waveforms):
            alike[waveform.shape[0].bit_length()].append(index)
        order = [index for indices in alike.values() for index in indices]
        # One copy for both: the lengths, and the indices that restore the order of the clips.
        small = transfer.to_device(
            torch.tensor([waveforms[index].shape[0] for index in order] + np.argsort(order).tolist())
        )
        lengths, places = small[: len(order)], small[len(order) :]
        bounds, done = [], 0
        for indices in alike.values():
            padded = pad_sequence([waveforms[index] for index in indices], batch_first=True)
            bounds.append(speech_bounds(padded, lengths[done : done + len(indices)]))
            done += len(indices)
        return torch.cat(bounds)[places]

    def _encode(
        self,
        transfer: Transfer,
        group: Group,
        waveforms: Sequence[Tensor],
        scored: Sequence[Sequence[int]],
        frames: Sequence[int],
    ) -> Encoded:
        """Normalise each clip of a group in FP32, pad the group, and encode it."""
        shape = group.shape
        samples = self._config.samples(shape.frames)
        batch = torch.zeros(shape.rows, samples, dtype=self._dtype, device=self._device)
        for row, index in enumerate(group.clips):
            start, end = scored[index]
            x = waveforms[index][start:end]
            if self._config.normalize:
                x = functional.layer_norm(x, x.shape)
            x = x[:samples]  # without a remainder that makes no frame
            batch[row, : x.shape[0]] = x
        counts = [frames[index] for index in group.clips] + [0] * (shape.rows - len(group.clips))
        unpadded = counts == [shape.frames] * shape.rows
        if unpadded and shape not in self._encoder.programs:
            return self._encoder.encode(batch)
        return self._encoder.encode(batch, transfer.to_device(torch.tensor(counts)))

    def _download(
        self,
        transfer: Transfer,
        clips: Sequence[Clip],
        groups: Sequence[Group],
        answers: Sequence[Encoded],
        frames: Sequence[int],
    ) -> dict[int, tuple[Floats, Floats, Floats | None]]:
        """Copy all results back in one transfer: by clip, its logits, embedding, and features if asked for."""
        parts: list[Tensor] = []
        for group, answer in zip(groups, answers, strict=True):
            parts += [answer.logits, answer.embeddings]
            parts += [
                answer.features[row, : frames[index]].float()
                for row, index in enumerate(group.clips)
                if clips[index].frame_embeddings
            ]
        flat = transfer.to_host(torch.cat([part.flatten() for part in parts]))
        arrays = iter(np.split(flat, np.cumsum([part.numel() for part in parts])[:-1]))
        shapes = iter(tuple(part.shape) for part in parts)
        results = {}
        for group in groups:
            logits, embeddings = (next(arrays).reshape(next(shapes)) for _ in range(2))
            for row, index in enumerate(group.clips):
                wanted = clips[index].frame_embeddings
                features = next(arrays).reshape(next(shapes)).copy() if wanted else None
                # Copies, so that an answer does not keep the whole batch in memory.
                results[index] = logits[row, : frames[index]].copy(), embeddings[row].copy(), features
        for found in results.values():
            if not all(np.isfinite(array).all() for array in found if array is not None):
                raise FloatingPointError(f"the model's answer in {self.info.dtype} is not finite")
        return results


def _span(samples: Sequence[int]) -> Span:
    start, end = samples
    return Span(start / SAMPLING_RATE, end / SAMPLING_RATE)
