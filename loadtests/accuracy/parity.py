"""Compares the answers of the backends with FunASR's, with the same checkpoint and the same audio.

    python -m loadtests.accuracy.parity CHECKPOINT AUDIO [--backend onnx --backend torch] [--limit N] [--output FILE]

CHECKPOINT is a directory in hub layout; AUDIO a folder that is searched for wav and flac files. Files are mixed to mono
and resampled to 16 kHz once, for all backends and FunASR, so that only the model differs; nothing is trimmed, as in
FunASR. Needs the extra [torch].
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from loadtests.common.audio_clips import read_clip
from loadtests.common.funasr import load_funasr
from loadtests.common.kappa import cohen_kappa
from loadtests.common.machine import cores
from service.inference.backend import Backend
from service.inference.backends.select import open_backend
from service.model.prepare import prepare
from service.results import Clip, Floats

BACKENDS = ("onnx", "onnx-int8", "torch")
VERSIONS = ("funasr", "torch", "onnxruntime", "numpy")


@dataclass
class Comparison:
    """One backend compared with FunASR, over all clips so far.

    Attributes:
        max_score_difference, max_embedding_difference: largest absolute differences.
        agreeing_labels: number of clips with the same label.
        seconds: run time of the backend.
        labels: FunASR's label and the backend's, as indices, of every clip.
    """

    max_score_difference: float = 0.0
    max_embedding_difference: float = 0.0
    agreeing_labels: int = 0
    seconds: float = 0.0
    labels: list[tuple[int, int]] = field(default_factory=list)

    def add(self, scores: Floats, embedding: Floats, expected_scores: Floats, expected_embedding: Floats) -> None:
        """Add one clip."""
        self.max_score_difference = max(self.max_score_difference, float(np.abs(scores - expected_scores).max()))
        difference = float(np.abs(embedding - expected_embedding).max())
        self.max_embedding_difference = max(self.max_embedding_difference, difference)
        expected, found = int(expected_scores.argmax()), int(scores.argmax())
        self.labels.append((expected, found))
        self.agreeing_labels += found == expected

    def summary(self) -> dict[str, Any]:
        """Plain values, with Cohen's kappa of the labels."""
        values = {name: value for name, value in asdict(self).items() if name != "labels"}
        return {**values, "kappa": cohen_kappa(*zip(*self.labels, strict=True))}


def clips(folder: Path, limit: int | None) -> Iterator[tuple[Path, Floats]]:
    """Path and samples, mono at 16 kHz, of the files in a folder; `limit` of them, spread evenly, if there are more."""
    paths = sorted(path for suffix in ("wav", "flac") for path in folder.rglob(f"*.{suffix}"))
    if limit is not None and limit < len(paths):
        paths = [paths[i * len(paths) // limit] for i in range(limit)]
    for path in paths:
        yield path, read_clip(path)


def answer(backend: Backend, waveform: Floats) -> tuple[Floats, Floats]:
    """Scores of the labels that are not masked, and the embedding."""
    (output,) = backend.run([Clip(waveform, 16_000, trim=False)]).clips
    info = backend.info
    unmasked = [index for index in range(len(info.labels)) if index not in info.masked]
    mean = output.logits[:, unmasked].mean(axis=0, dtype=np.float64)
    exponentials = np.exp(mean - mean.max())
    return (exponentials / exponentials.sum()).astype(np.float32), output.embedding


def compare(checkpoint: Path, audio: Path, names: Sequence[str], limit: int | None, threads: int) -> dict[str, Any]:
    """Run FunASR and the backends on all clips; the figures by name."""
    with contextlib.redirect_stdout(sys.stderr):  # FunASR prints to standard output, where the figures go
        reference = load_funasr(checkpoint, "cpu", threads)
    comparisons = {name: Comparison() for name in names}
    labels: dict[str, int] = {}
    count, duration, funasr_seconds = 0, 0.0, 0.0
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch) / "model"
        manifest = prepare(checkpoint, directory, id="checkpoint", int8="onnx-int8" in names)
        backends = {
            name: open_backend(
                directory,
                manifest,
                backend="torch" if name == "torch" else "onnx",
                device="cpu",
                dtype="int8" if name.endswith("int8") else "fp32",
                threads=threads,
            )
            for name in names
        }
        for path, waveform in clips(audio, limit):
            began = time.perf_counter()
            (expected,) = reference.generate(waveform, granularity="utterance", extract_embedding=True)
            funasr_seconds += time.perf_counter() - began
            scores = np.array(expected["scores"], np.float32)
            label = expected["labels"][int(scores.argmax())]
            labels[label] = labels.get(label, 0) + 1
            for name, backend in backends.items():
                began = time.perf_counter()
                found = answer(backend, waveform)
                comparisons[name].seconds += time.perf_counter() - began
                comparisons[name].add(*found, scores, expected["feats"])
            count, duration = count + 1, duration + len(waveform) / 16_000
            print(f"{count:5} {path.name} {label}", file=sys.stderr)
    if not count:
        raise SystemExit(f"no wav or flac files in {audio}")
    return {
        "revision": manifest.revision,
        "clips": count,
        "audio_seconds": round(duration, 1),
        "threads": threads,
        "funasr_seconds": round(funasr_seconds, 1),
        "funasr_labels": labels,
        "backends": {name: comparison.summary() for name, comparison in comparisons.items()},
        "versions": {name: metadata.version(name) for name in VERSIONS},
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.accuracy.parity", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("audio", type=Path)
    parser.add_argument("--backend", action="append", choices=BACKENDS, help="may be repeated; default onnx and torch")
    parser.add_argument("--limit", type=int, help="how many files, spread evenly over the folder")
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--output", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    names = options.backend or ["onnx", "torch"]
    figures = compare(options.checkpoint, options.audio, names, options.limit, options.threads)
    text = json.dumps(figures, indent=2, ensure_ascii=False)
    print(text)
    if options.output:
        options.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
