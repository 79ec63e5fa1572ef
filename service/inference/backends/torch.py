"""The torch backend: CUDA in half precision; on the CPU the FP32 cross-check of the ONNX backend.

Everything from resampling on happens on the device. Two copies come back: where speech is, which decides the shapes,
and the results.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from service.errors import SettingsInvalid
from service.inference.backend import BatchLimits
from service.inference.backends.buckets import Group, bucketed, one_by_one
from service.inference.encoder import Encoder
from service.model.manifest import WEIGHTS, Manifest
from service.model.probe import speech_like
from service.preprocess.device import resample, speech_bounds
from service.results import SAMPLING_RATE, BatchOutput, Clip, ClipOutput, ModelInfo, Span

logger = logging.getLogger(__name__)

Dtype = Literal["auto", "fp32", "fp16", "bf16"]

CUDA_LIMITS = BatchLimits(clips=32, seconds=320.0)
CPU_LIMITS = BatchLimits(clips=8, seconds=10.0)
"""Clips run one by one on the CPU: a batch only saves hand-overs between threads."""

_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_TOLERANCE = 1e-2
"""How far scores in half precision may be from those in FP32."""


class TorchBackend:
    """A `service.inference.backend.Backend` on torch.

    Args:
        directory: a prepared model.
        manifest: its manifest.
        device: `cpu`, `cuda` or `cuda:N`.
        dtype: `auto` is FP32 on the CPU; on CUDA the first of FP16, BF16 and FP32 that keeps the model's scores.
        threads: of the CPU; 0 leaves them to torch.
        padded: whether clips are put together into padded batches; None does so on CUDA.

    Raises:
        SettingsInvalid: if the device is not there, or the precision asked for changes the model's scores.
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
        padded: bool | None = None,
    ) -> None:
        self._device = _open_device(device)
        self._cuda = self._device.type == "cuda"
        if threads and not self._cuda:
            torch.set_num_threads(threads)
        self._config = manifest.config
        self._encoder, precision = _load(directory / WEIGHTS, manifest, self._device, dtype)
        self._dtype = _DTYPES[precision]
        extra = self._config.num_extra_tokens
        self._plan = partial(bucketed, extra=extra) if (self._cuda if padded is None else padded) else one_by_one
        self._info = manifest.info(backend="torch", device=str(self._device), dtype=precision)

    @property
    def info(self) -> ModelInfo:
        """Which model answers."""
        return self._info

    @property
    def limits(self) -> BatchLimits:
        """The largest batch."""
        return CUDA_LIMITS if self._cuda else CPU_LIMITS

    def warm_up(self) -> None:
        """The largest batch, then one clip of another rate."""
        limits = self.limits
        clip = Clip(speech_like(limits.seconds / limits.clips), SAMPLING_RATE)
        self.run([clip] * limits.clips)
        self.run([Clip(speech_like(2.0), 44_100)])

    def run(self, clips: Sequence[Clip]) -> BatchOutput:
        """Answer a batch; see `Backend.run`."""
        began = time.perf_counter()
        with torch.inference_mode():
            waveforms = self._upload(clips)
            speech = self._speech(waveforms)
            stretches = [
                (0, waveform.shape[0]) if not (clip.trim and end) else (start, end)
                for clip, waveform, (start, end) in zip(clips, waveforms, speech, strict=True)
            ]
            prepared = time.perf_counter()
            frames = [self._config.frames(end - start) for start, end in stretches]
            groups = self._plan(frames)
            parts: list[list[Tensor]] = [[] for _ in clips]
            for group in groups:
                features, logits = self._encode(group, waveforms, stretches, frames)
                for row, index in enumerate(group.clips):
                    valid = features[row, : frames[index]].float()
                    parts[index] = [logits[row, : frames[index]], valid.mean(dim=0)]
                    if clips[index].frame_embeddings:
                        parts[index].append(valid)
            outputs = self._download(clips, parts, speech, stretches)
        padded = sum(group.rows * group.frames for group in groups)
        return BatchOutput(
            clips=outputs,
            preprocess_seconds=prepared - began,
            inference_seconds=time.perf_counter() - prepared,
            padding_ratio=1.0 - sum(frames) / padded,
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
        """Release the weights and the memory that torch keeps for later."""
        del self._encoder
        if self._cuda:
            torch.cuda.empty_cache()

    def _upload(self, clips: Sequence[Clip]) -> list[Tensor]:
        """Copy all clips to the device at once, and resample there."""
        sizes = [clip.samples.shape[0] for clip in clips]
        host = torch.empty(sum(sizes), dtype=torch.float32, pin_memory=self._cuda)
        np.concatenate([clip.samples for clip in clips], out=host.numpy())
        whole = host.to(self._device, non_blocking=True)
        return [resample(part, clip.sampling_rate) for part, clip in zip(torch.split(whole, sizes), clips, strict=True)]

    def _speech(self, waveforms: Sequence[Tensor]) -> list[tuple[int, int]]:
        """Begin and end of speech in samples, (0, 0) in silent clips."""
        # Together only where lengths are within a factor of two: one long clip must not blow up all others.
        alike: dict[int, list[int]] = defaultdict(list)
        for index, waveform in enumerate(waveforms):
            alike[waveform.shape[0].bit_length()].append(index)
        bounds = []
        for indices in alike.values():
            lengths = torch.tensor([waveforms[index].shape[0] for index in indices])
            padded = pad_sequence([waveforms[index] for index in indices], batch_first=True)
            bounds.append(speech_bounds(padded, lengths.to(self._device)))
        order = [index for indices in alike.values() for index in indices]
        rows: list[list[int]] = torch.cat(bounds).tolist()
        found = dict(zip(order, rows, strict=True))
        return [(found[index][0], found[index][1]) for index in range(len(waveforms))]

    def _encode(
        self, group: Group, waveforms: Sequence[Tensor], stretches: Sequence[tuple[int, int]], frames: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """Normalise each clip of a group in FP32, pad, and encode."""
        samples = self._config.samples(group.frames)
        batch = torch.zeros(group.rows, samples, dtype=self._dtype, device=self._device)
        for row, index in enumerate(group.clips):
            start, end = stretches[index]
            x = waveforms[index][start:end]
            if self._config.normalize:
                x = functional.layer_norm(x, x.shape)
            # Samples that make no further frame are not needed any more.
            x = x[:samples]
            batch[row, : x.shape[0]] = x
        counts = [frames[index] for index in group.clips] + [0] * (group.rows - len(group.clips))
        unpadded = counts == [group.frames] * group.rows
        features, logits = self._encoder(batch, None if unpadded else torch.tensor(counts, device=self._device))
        return features, logits

    def _download(
        self,
        clips: Sequence[Clip],
        parts: Sequence[Sequence[Tensor]],
        speech: Sequence[tuple[int, int]],
        stretches: Sequence[tuple[int, int]],
    ) -> tuple[ClipOutput, ...]:
        """Copy all results back at once; each clip gets arrays of its own, which keep nothing else alive."""
        flat = torch.cat([part.flatten() for results in parts for part in results]).cpu().numpy()
        if not np.isfinite(flat).all():
            raise FloatingPointError(f"the model's answer in {self._info.dtype} is not finite")
        offset = 0
        outputs = []
        for index, results in enumerate(parts):
            arrays = []
            for part in results:
                arrays.append(flat[offset : offset + part.numel()].reshape(part.shape).copy())
                offset += part.numel()
            outputs.append(
                ClipOutput(
                    logits=arrays[0],
                    embedding=arrays[1],
                    frame_embeddings=arrays[2] if clips[index].frame_embeddings else None,
                    speech=_span(speech[index]) if speech[index][1] else None,
                    scored=_span(stretches[index]),
                )
            )
        return tuple(outputs)


def _span(samples: tuple[int, int]) -> Span:
    return Span(samples[0] / SAMPLING_RATE, samples[1] / SAMPLING_RATE)


def _open_device(name: str) -> torch.device:
    device = torch.device(name)
    if device.type == "cuda":
        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= found:
            raise SettingsInvalid(
                f"device is {name}, but torch finds {found or 'no'} usable GPU; check `nvidia-smi` and that torch was "
                "installed with CUDA, or set the device to cpu"
            )
        # FP32 shall mean FP32: convolutions would round to TF32 by default.
        torch.backends.cudnn.allow_tf32 = False
    return device


def _load(path: Path, manifest: Manifest, device: torch.device, dtype: Dtype) -> tuple[Encoder, str]:
    """The encoder in the precision asked for, or in the first that keeps the scores, and that precision's name."""
    weights = load_file(path)
    reference = Encoder.from_weights(manifest.config, weights, device=device, dtype=torch.float32)
    if dtype == "fp32" or (dtype == "auto" and device.type == "cpu"):
        return reference, "fp32"
    difference = float("nan")
    for name in ("fp16", "bf16") if dtype == "auto" else (dtype,):
        encoder = Encoder.from_weights(manifest.config, weights, device=device, dtype=_DTYPES[name])
        difference = _difference(reference, encoder, device, _DTYPES[name])
        if difference <= _TOLERANCE:
            return encoder, name
        logger.warning("%s changes the scores of %s by %.1e", name, manifest.id, difference)
    if dtype == "auto":
        return reference, "fp32"
    raise SettingsInvalid(
        f"in {dtype} the scores of {manifest.id} differ by {difference:.1e} from those in fp32 on {device}; "
        "choose another dtype"
    )


def _difference(reference: Encoder, encoder: Encoder, device: torch.device, dtype: torch.dtype) -> float:
    """Largest difference in scores between two encoders, NaN if one of them answers it."""
    # Some models overflow in half precision without any error: only real numbers tell.
    waveforms = torch.from_numpy(np.stack([speech_like(4.0, seed) for seed in range(4)])).to(device)
    waveforms = functional.layer_norm(waveforms, waveforms.shape[1:])
    with torch.inference_mode():
        expected, found = (
            model(waveforms.to(precision))[1].mean(dim=1).softmax(dim=-1)
            for model, precision in ((reference, torch.float32), (encoder, dtype))
        )
    return float((expected - found).abs().max())
