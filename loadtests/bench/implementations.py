"""The implementations that are compared, as objects for a `SubprocessWorker`: a method returns the seconds it took."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from loadtests.common import audio_clips, machine
from loadtests.common.funasr import load_funasr
from service.inference.backends.select import BackendChoice, DtypeChoice, open_backend
from service.model.manifest import Manifest
from service.preprocess import resample_trim
from service.preprocess.clips import make_clips
from service.recognition.scores import recognition
from service.results import SAMPLING_RATE, Clip, Floats, Granularity, Recognition, Waveform

STEREO_RATE = 44_100
STEREO_SECONDS = 10.0

_speech = cache(audio_clips.speech)


@dataclass(frozen=True, slots=True)
class Implementation:
    """One implementation, which is a column of the comparison.

    Attributes:
        key: a stable name.
        title: heading of the column.
        device: `cpu` or `cuda`.
        dtype: precision of the service; None for FunASR.
        baseline: key of the implementation that it is compared with; None for FunASR.
        threads: of FunASR on the CPU; 0 keeps FunASR's default.
    """

    key: str
    title: str
    device: Literal["cpu", "cuda"]
    dtype: DtypeChoice | None = None
    baseline: str | None = None
    threads: int = 0

    @property
    def backend(self) -> BackendChoice:
        """The service's backend on this device."""
        return "torch" if self.device == "cuda" else "onnx"


CPU_IMPLEMENTATIONS = (
    Implementation("funasr", "FunASR", "cpu"),
    Implementation("fp32", "service, FP32", "cpu", "fp32", "funasr"),
    Implementation("int8", "service, INT8", "cpu", "int8", "funasr"),
)
CUDA_IMPLEMENTATIONS = (
    Implementation("funasr-cuda", "FunASR, CUDA", "cuda"),
    Implementation("cuda", "service, CUDA", "cuda", "auto", "funasr-cuda"),
)


class FunASRModel:
    """FunASR: `AutoModel.generate` on samples in memory."""

    def __init__(self, hub: Path, implementation: Implementation) -> None:
        self._model = load_funasr(hub, implementation.device, implementation.threads)
        self._note = "" if implementation.threads else " (its default)"

    def describe(self) -> str:
        """Device, precision and threads."""
        import torch

        return f"{self._model.kwargs['device']}, FP32, {torch.get_num_threads()} threads{self._note}"

    def utterance(self, seconds: float) -> float:
        """Seconds for the scores of a clip."""
        return self._timed(seconds, granularity="utterance", extract_embedding=False)

    def together(self, seconds: float, count: int) -> float:
        """Seconds for the scores of several clips in one call."""
        samples = _speech(seconds)
        return timed(lambda: self._model.generate([samples] * count, granularity="utterance", extract_embedding=False))

    def frame(self, seconds: float) -> float:
        """Seconds for the features of every frame; FunASR has no scores per frame."""
        return self._timed(seconds, granularity="frame", extract_embedding=True)

    def _timed(self, seconds: float, **options: Any) -> float:
        samples = _speech(seconds)
        return timed(lambda: self._model.generate(samples, **options))

    def scores(self, samples: Floats) -> tuple[Floats, Floats]:
        """Scores of a clip, (label,), and of its frames, (frame, label), which are its head on its frame features."""
        answer = self._model.generate(samples, granularity="frame", extract_embedding=True)[0]
        head = self._model.model.proj
        logits = answer["feats"] @ head.weight.detach().cpu().numpy().T + head.bias.detach().cpu().numpy()
        tokens = self._model.kwargs["tokenizer"].token_list
        logits = logits[:, [not token.startswith("unuse") for token in tokens]]
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(answer["scores"], np.float32), powers / powers.sum(axis=1, keepdims=True)


class ServiceModel:
    """The service's backend and its postprocessing, without HTTP, on samples in memory."""

    def __init__(self, prepared: Path, implementation: Implementation) -> None:
        manifest = Manifest.read(prepared)
        assert implementation.dtype is not None
        self._backend = open_backend(
            prepared, manifest, backend=implementation.backend, device=implementation.device, dtype=implementation.dtype
        )
        self._backend.warm_up()

    def describe(self) -> str:
        """Device, precision and threads."""
        info = self._backend.info
        threads = f", {machine.cores()} threads" if info.device == "cpu" else ""
        return f"{info.device}, {info.dtype.upper()}{threads}, {info.backend} backend"

    def utterance(self, seconds: float) -> float:
        """Seconds for the scores of a clip."""
        return self._timed(seconds, "utterance")

    def together(self, seconds: float, count: int) -> float:
        """Seconds for the scores of several clips in one call."""
        samples = _speech(seconds)
        return timed(lambda: self._answers([samples] * count, "utterance"))

    def frame(self, seconds: float) -> float:
        """Seconds for the scores of a clip and of every frame."""
        return self._timed(seconds, "frame")

    def _timed(self, seconds: float, granularity: Granularity) -> float:
        samples = _speech(seconds)
        return timed(lambda: self._answers([samples], granularity))

    def scores(self, samples: Floats) -> tuple[Floats, Floats]:
        """Scores of a clip, (label,), and of its frames, (frame, label)."""
        (found,) = self._answers([samples], "frame")
        assert found.frames is not None
        return found.scores, found.frames.scores

    def _answers(self, clips: Sequence[Floats], granularity: Granularity) -> list[Recognition]:
        # Not trimmed, since FunASR does not trim; the time to find the speech is included all the same.
        run = self._backend.run([Clip(samples, SAMPLING_RATE, trim=False) for samples in clips])
        info = self._backend.info
        return [recognition(output, info, granularity=granularity, embedding="none") for output in run.clips]


class LibrosaPreprocessing:
    """Preprocessing with librosa, as in most Python programs."""

    def __init__(self) -> None:
        self._stereo = audio_clips.stereo_with_silence(STEREO_SECONDS, STEREO_RATE)
        self._mono = self._resampled()

    def _resampled(self) -> Floats:
        import librosa

        mono = librosa.to_mono(self._stereo)
        samples: Floats = librosa.resample(mono, orig_sr=STEREO_RATE, target_sr=SAMPLING_RATE)
        return samples

    def resample(self) -> float:
        """Seconds to mix stereo down and resample to 16 kHz."""
        return timed(self._resampled)

    def trim(self) -> float:
        """Seconds to trim silence at both ends of the resampled clip."""
        from librosa.effects import trim

        return timed(
            lambda: trim(self._mono, top_db=40, frame_length=resample_trim.FRAME, hop_length=resample_trim.HOP)
        )


class NumpyPreprocessing:
    """Preprocessing of the service on the CPU: `service.preprocess.resample_trim`."""

    def __init__(self) -> None:
        self._waveform = Waveform(audio_clips.stereo_with_silence(STEREO_SECONDS, STEREO_RATE), STEREO_RATE)
        self._mono = self._resampled()

    def _resampled(self) -> Floats:
        return resample_trim.resample(_mixed(self._waveform), STEREO_RATE)

    def resample(self) -> float:
        """Seconds to validate the samples, mix stereo down and resample to 16 kHz."""
        return timed(self._resampled)

    def trim(self) -> float:
        """Seconds to trim silence at both ends of the resampled clip."""

        def trimmed() -> Floats:
            start, end = resample_trim.speech_bounds(self._mono[np.newaxis], np.array([self._mono.size]))[0].tolist()
            return self._mono[start:end]

        return timed(trimmed)


class TorchPreprocessing:
    """Preprocessing of the torch backend: `service.preprocess.resample_trim_torch`."""

    def __init__(self, device: str) -> None:
        import torch

        self._torch = torch
        self._device = torch.device(device)
        self._waveform = Waveform(audio_clips.stereo_with_silence(STEREO_SECONDS, STEREO_RATE), STEREO_RATE)
        self._mono = self._resampled()

    def _resampled(self) -> Any:
        from service.preprocess import resample_trim_torch

        samples = self._torch.from_numpy(_mixed(self._waveform)).to(self._device)
        with self._torch.inference_mode():
            return self._finished(resample_trim_torch.resample(samples, STEREO_RATE))

    def _finished(self, result: Any) -> Any:
        if self._device.type == "cuda":
            self._torch.cuda.synchronize(self._device)
        return result

    def resample(self) -> float:
        """Seconds to validate the samples, mix stereo down, copy it to the device and resample to 16 kHz."""
        return timed(self._resampled)

    def trim(self) -> float:
        """Seconds to trim silence at both ends of the resampled clip."""
        from service.preprocess import resample_trim_torch

        def trimmed() -> Any:
            lengths = self._torch.tensor([len(self._mono)], device=self._device)
            with self._torch.inference_mode():
                start, end = resample_trim_torch.speech_bounds(self._mono[None], lengths)[0].tolist()
            return self._mono[start:end]

        return timed(trimmed)


def timed(call: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _mixed(waveform: Waveform) -> Floats:
    return make_clips(waveform, channels="mix", start=None, end=None, trim=True, frame_embeddings=False)[0][0].samples
