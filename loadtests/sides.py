"""What is compared, as objects that live in a `Worker`: a method does a piece of work and says how long it took."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from loadtests import clips, machine
from service.inference.backends.select import BackendChoice, DtypeChoice, open_backend
from service.model.manifest import Manifest
from service.preprocess import resample_trim
from service.preprocess.clips import make_clips
from service.recognition.scores import recognition
from service.results import SAMPLING_RATE, Clip, Floats, Granularity, Recognition, Waveform

STEREO_RATE = 44_100
STEREO_SECONDS = 10.0

_speech = cache(clips.speech)


@dataclass(frozen=True, slots=True)
class Side:
    """One column of the comparison.

    Attributes:
        key: its name.
        title: for readers.
        device: `cpu` or `cuda`.
        dtype: of the service; None stands for FunASR.
        baseline: the column that it is compared with; None for FunASR.
        threads: of FunASR on the CPU; 0 leaves them as they are by default.
    """

    key: str
    title: str
    device: Literal["cpu", "cuda"]
    dtype: DtypeChoice | None = None
    baseline: str | None = None
    threads: int = 0

    @property
    def backend(self) -> BackendChoice:
        """What runs the service's model there."""
        return "torch" if self.device == "cuda" else "onnx"


CPU_SIDES = (
    Side("funasr", "FunASR", "cpu"),
    Side("fp32", "service, FP32", "cpu", "fp32", "funasr"),
    Side("int8", "service, INT8", "cpu", "int8", "funasr"),
)
CUDA_SIDES = (
    Side("funasr-cuda", "FunASR, CUDA", "cuda"),
    Side("cuda", "service, CUDA", "cuda", "auto", "funasr-cuda"),
)


class FunASRSide:
    """FunASR as it comes: `AutoModel.generate` on samples in memory, with its own number of threads."""

    def __init__(self, hub: Path, side: Side) -> None:
        self._model = load_funasr(hub, side.device, side.threads)
        self._note = "" if side.threads else " (its default)"

    def describe(self) -> str:
        """Device, precision and threads."""
        import torch

        return f"{self._model.kwargs['device']}, FP32, {torch.get_num_threads()} threads{self._note}"

    def utterance(self, seconds: float) -> float:
        """Seconds that the scores of a clip take."""
        return self._timed(seconds, granularity="utterance", extract_embedding=False)

    def together(self, seconds: float, count: int) -> float:
        """Seconds that the scores of several clips take, given in one call."""
        samples = _speech(seconds)
        return timed(lambda: self._model.generate([samples] * count, granularity="utterance", extract_embedding=False))

    def frame(self, seconds: float) -> float:
        """Seconds that the features of every frame take; FunASR gives no scores over time."""
        return self._timed(seconds, granularity="frame", extract_embedding=True)

    def _timed(self, seconds: float, **options: Any) -> float:
        samples = _speech(seconds)
        return timed(lambda: self._model.generate(samples, **options))

    def scores(self, samples: Floats) -> tuple[Floats, Floats]:
        """Scores of a clip, (label,), and of its frames, (frame, label): its own head on its frame features."""
        answer = self._model.generate(samples, granularity="frame", extract_embedding=True)[0]
        head = self._model.model.proj
        logits = answer["feats"] @ head.weight.detach().cpu().numpy().T + head.bias.detach().cpu().numpy()
        tokens = self._model.kwargs["tokenizer"].token_list
        logits = logits[:, [not token.startswith("unuse") for token in tokens]]
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(answer["scores"], np.float32), powers / powers.sum(axis=1, keepdims=True)


class ServiceSide:
    """The service's backend and what follows it, without HTTP, on samples in memory."""

    def __init__(self, prepared: Path, side: Side) -> None:
        manifest = Manifest.read(prepared)
        assert side.dtype is not None
        self._backend = open_backend(prepared, manifest, backend=side.backend, device=side.device, dtype=side.dtype)
        self._backend.warm_up()

    def describe(self) -> str:
        """Device, precision and threads."""
        info = self._backend.info
        threads = f", {machine.cores()} threads" if info.device == "cpu" else ""
        return f"{info.device}, {info.dtype.upper()}{threads}, {info.backend} backend"

    def utterance(self, seconds: float) -> float:
        """Seconds that the scores of a clip take."""
        return self._timed(seconds, "utterance")

    def together(self, seconds: float, count: int) -> float:
        """Seconds that the scores of several clips take, given in one call."""
        samples = _speech(seconds)
        return timed(lambda: self._answers([samples] * count, "utterance"))

    def frame(self, seconds: float) -> float:
        """Seconds that the scores of a clip and of every frame take."""
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
        # Untrimmed, since FunASR does not trim; the search for speech is paid for all the same.
        run = self._backend.run([Clip(samples, SAMPLING_RATE, trim=False) for samples in clips])
        info = self._backend.info
        return [recognition(output, info, granularity=granularity, embedding="none") for output in run.clips]


class LibrosaSide:
    """What Python programs use before a model: librosa."""

    def __init__(self) -> None:
        self._stereo = clips.stereo_with_silence(STEREO_SECONDS, STEREO_RATE)
        self._mono = self._resampled()

    def _resampled(self) -> Floats:
        import librosa

        mono = librosa.to_mono(self._stereo)
        samples: Floats = librosa.resample(mono, orig_sr=STEREO_RATE, target_sr=SAMPLING_RATE)
        return samples

    def resample(self) -> float:
        """Seconds to mix stereo down and bring it to 16 kHz."""
        return timed(self._resampled)

    def trim(self) -> float:
        """Seconds to find the silence at both ends of the result and cut it off."""
        from librosa.effects import trim

        return timed(
            lambda: trim(self._mono, top_db=40, frame_length=resample_trim.FRAME, hop_length=resample_trim.HOP)
        )


class HostSide:
    """What the service does on the CPU: `service.preprocess.resample_trim`."""

    def __init__(self) -> None:
        self._waveform = Waveform(clips.stereo_with_silence(STEREO_SECONDS, STEREO_RATE), STEREO_RATE)
        self._mono = self._resampled()

    def _resampled(self) -> Floats:
        return resample_trim.resample(_mixed(self._waveform), STEREO_RATE)

    def resample(self) -> float:
        """Seconds to check the samples, mix stereo down and bring it to 16 kHz."""
        return timed(self._resampled)

    def trim(self) -> float:
        """Seconds to find the silence at both ends of the result and cut it off."""

        def trimmed() -> Floats:
            start, end = resample_trim.speech_bounds(self._mono[np.newaxis], np.array([self._mono.size]))[0].tolist()
            return self._mono[start:end]

        return timed(trimmed)


class DeviceSide:
    """What the torch backend does: `service.preprocess.resample_trim_torch`."""

    def __init__(self, device: str) -> None:
        import torch

        self._torch = torch
        self._device = torch.device(device)
        self._waveform = Waveform(clips.stereo_with_silence(STEREO_SECONDS, STEREO_RATE), STEREO_RATE)
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
        """Seconds to check the samples, mix stereo down, copy it to the device and bring it to 16 kHz."""
        return timed(self._resampled)

    def trim(self) -> float:
        """Seconds to find the silence at both ends of the result and cut it off."""
        from service.preprocess import resample_trim_torch

        def trimmed() -> Any:
            lengths = self._torch.tensor([len(self._mono)], device=self._device)
            with self._torch.inference_mode():
                start, end = resample_trim_torch.speech_bounds(self._mono[None], lengths)[0].tolist()
            return self._mono[start:end]

        return timed(trimmed)


def load_funasr(hub: Path, device: str, threads: int) -> Any:
    """FunASR's model, silent: nothing that it prints or logs counts against it."""
    from funasr import AutoModel

    options: dict[str, Any] = {"ncpu": threads} if threads else {}
    return AutoModel(
        model=str(hub), device=device, disable_update=True, disable_pbar=True, log_level="ERROR", **options
    )


def timed(work: Callable[[], object]) -> float:
    """Seconds that `work` takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _mixed(waveform: Waveform) -> Floats:
    return make_clips(waveform, channels="mix", start=None, end=None, trim=True, frame_embeddings=False)[0].samples
