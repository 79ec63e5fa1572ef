"""Measurements of the GPU report: agreement, speed with and without compiled programs, and duration of starts."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from loadtests.accuracy.parity import Comparison
from loadtests.bench.bench_models import BenchModel
from loadtests.common.audio_clips import recorded_clips, speech
from loadtests.common.funasr import load_funasr
from service.inference.backend import Backend
from service.inference.backends.compile_options import CompileChoice, CompileOptions
from service.inference.backends.select import DtypeChoice, open_backend
from service.model.manifest import MANIFEST, WEIGHTS, FileEntry, Manifest
from service.recognition.scores import recognition
from service.results import SAMPLING_RATE, Clip, ClipOutput

_HEAD_SCALE = 0.05
"""Factor for the head of a model with random weights. The unscaled head gives different labels to clips whose
embeddings are nearly equal: it amplifies rounding errors so much that the service refuses half precision."""

_START = """
import json, sys, time
began = time.monotonic()
from loadtests.gpu.gpu_measurements import open_torch
from pathlib import Path
backend = open_torch(Path(sys.argv[1]), sys.argv[2], "auto", sys.argv[3])
loaded = time.monotonic()
backend.warm_up()
print(json.dumps({"load, s": loaded - began, "warm-up, s": time.monotonic() - loaded, "dtype": backend.info.dtype}))
"""


def with_scaled_head(model: BenchModel, cache: Path) -> BenchModel:
    """The same model with a smaller head, so that it runs in half precision; only the torch backend can load it."""
    directory = cache / f"{model.prepared.parent.name}-scaled-head"
    if not (directory / MANIFEST).is_file():
        directory.mkdir(parents=True, exist_ok=True)
        weights = load_file(model.prepared / WEIGHTS)
        for name in ("proj.weight", "proj.bias"):
            weights[name] = weights[name] * np.float32(_HEAD_SCALE)
        save_file(weights, directory / WEIGHTS)
        manifest = Manifest.read(model.prepared)
        replace(manifest, files={WEIGHTS: FileEntry.of(directory / WEIGHTS)}, int8_error=None).write(directory)
    return BenchModel(model.hub, directory)


def open_torch(prepared: Path, device: str, dtype: DtypeChoice, compile_: CompileChoice) -> Backend:
    """The torch backend with a prepared model, not warmed up yet."""
    compile_options = CompileOptions(choice=compile_)
    manifest = Manifest.read(prepared)
    return open_backend(
        prepared, manifest, backend="torch", device=device, dtype=dtype, compile_options=compile_options
    )


def agreement(model: BenchModel, device: str, dtypes: Sequence[DtypeChoice], more: Path | None) -> list[dict[str, Any]]:
    """Compare each precision with FunASR on the CPU, for recorded clips: one by one, and in the largest batches.

    Args:
        model: a trained model; random weights amplify rounding errors too much.
        device: where the service runs.
        dtypes: the precisions.
        more: a directory with more clips.
    """
    waveforms = [samples for _, samples in recorded_clips(more)]
    reference = load_funasr(model.hub, "cpu", 0)
    expected = []
    for samples in waveforms:
        (found,) = reference.generate(samples, granularity="utterance", extract_embedding=True)
        expected.append((np.array(found["scores"], np.float32), found["feats"]))
    rows = []
    for dtype in dtypes:
        backend = open_torch(model.prepared, device, dtype, "auto")
        backend.warm_up()
        batch = [Clip(samples, SAMPLING_RATE, trim=False) for samples in waveforms]
        size = backend.limits.clips
        runs = {
            "one by one": [backend.run([clip]).clips[0] for clip in batch],
            "together": [
                c for first in range(0, len(batch), size) for c in backend.run(batch[first : first + size]).clips
            ],
        }
        rows += [
            {"precision": backend.info.dtype, "clips": name, **_compared(backend, outputs, expected)}
            for name, outputs in runs.items()
        ]
        backend.close()
    return rows


def _compared(backend: Backend, outputs: Sequence[ClipOutput], expected: Sequence[Any]) -> dict[str, Any]:
    comparison = Comparison()
    for output, (scores, embedding) in zip(outputs, expected, strict=True):
        found = recognition(output, backend.info, granularity="utterance", embedding="utterance")
        assert found.embedding is not None
        comparison.add(found.scores, found.embedding, scores, embedding)
    summary = comparison.summary()
    return {
        "largest difference of a score": summary["max_score_difference"],
        "same label": summary["agreeing_labels"] / len(outputs),
        "kappa": summary["kappa"],
    }


def speed(model: BenchModel, device: str, seconds: Sequence[float], rounds: int) -> list[dict[str, Any]]:
    """Milliseconds for one clip and for a full batch, by length, with and without compiled programs."""
    rows: dict[tuple[float, int], dict[str, Any]] = {}
    choices: tuple[CompileChoice, ...] = ("off", "auto")
    for choice in choices:
        backend = open_torch(model.prepared, device, "auto", choice)
        backend.warm_up()
        for length in seconds:
            full = max(1, min(backend.limits.clips, int(backend.limits.seconds / length)))
            for count in sorted({1, full}):
                batch = [Clip(speech(length), SAMPLING_RATE, trim=False)] * count
                row = rows.setdefault((length, count), {"seconds": length, "clips": count})
                row["not compiled, ms" if choice == "off" else "by default, ms"] = 1000 * _median(
                    backend, batch, rounds
                )
        backend.close()
    return list(rows.values())


def _median(backend: Backend, batch: Sequence[Clip], rounds: int) -> float:
    values = []
    for _ in range(rounds + 2):
        began = time.perf_counter()
        backend.run(batch)
        values.append(time.perf_counter() - began)
    return float(np.median(values[2:]))


def starts(model: BenchModel, device: str, compile_: CompileChoice) -> list[dict[str, Any]]:
    """Seconds to load and to warm up in a new process, and in a second one, which uses compiled programs of the first.

    Args:
        model: the model.
        device: where it runs.
        compile_: whether to compile.
    """
    rows = []
    for name in ("first", "second"):
        command = [sys.executable, "-c", _START, str(model.prepared), device, compile_]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        rows.append({"start": name, **json.loads(done.stdout.splitlines()[-1])})
    return rows
