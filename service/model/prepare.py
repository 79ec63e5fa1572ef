"""Converts a checkpoint, as downloaded from a model hub, into a prepared model, whose files the service memory-maps.

A prepared model is a directory with the weights as safetensors, the graphs for ONNX Runtime, which have been checked
against the encoder, and a manifest. The manifest is written last, so a directory with a manifest is complete.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import shutil
import tempfile
from datetime import UTC, datetime
from importlib import metadata
from itertools import count
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from service import __version__
from service.errors import CheckpointInvalid, SettingsInvalid
from service.model.checkpoint import Checkpoint, load_hub_directory
from service.model.config import ModelConfig
from service.model.manifest import CARD, MANIFEST, MODEL_ID, ONNX_FP32, ONNX_INT8, WEIGHTS, FileEntry, Manifest
from service.model.network.encoder import Encoder
from service.model.normalize import normalized
from service.model.onnx.graph import write_onnx
from service.model.onnx.inputs import lay_out
from service.model.synthetic_speech import speech_like
from service.results import SAMPLING_RATE, Floats

logger = logging.getLogger(__name__)

TOLERANCE = 1e-4
"""The largest accepted difference of the FP32 graph from the encoder, in scores and embeddings."""

_INT8_SIMILARITY = 0.9
"""The smallest accepted cosine of the INT8 graph's embeddings and the encoder's."""

_CHECK_CLIPS = ((0, 400), (1, 401), (2, 16_000), (3, 50_123))
"""Seeds and lengths in samples of the waveforms on which the graphs are checked."""

_PUBLISH_ATTEMPTS = 20
_TOOLS = ("torch", "onnx", "onnxruntime", "safetensors", "numpy")


class _Expected(NamedTuple):
    """A check clip, and the encoder's results for it."""

    waveform: Floats
    embedding: Floats
    scores: NDArray[np.float64]


def prepare(
    source: Path,
    target: Path,
    *,
    id: str,  # noqa: A002 - the name of the CLI option and of the manifest's field
    origin: str = "directory",
    int8: bool = True,
    demonstration: bool = False,
) -> Manifest:
    """Prepare the checkpoint in `source` and move the result to `target` atomically.

    Args:
        source: a directory in hub layout; a `CARD.md` in it is copied.
        target: the new directory; a prepared model there is replaced.
        id: the name of the model in answers.
        origin: the source of the checkpoint, `hub:owner/name` or `directory`.
        int8: whether to write the INT8 graph too.
        demonstration: whether answers say that the model is for demonstration.

    Returns:
        The manifest of the prepared model.

    Raises:
        ModelNotFound: if `source` lacks a file.
        CheckpointInvalid: if the checkpoint is not usable, or a graph differs too much from the encoder.
        SettingsInvalid: if `id` is not a valid name, or `target` exists and is not a prepared model.
    """
    if not MODEL_ID.fullmatch(id):
        raise SettingsInvalid(
            f"a model cannot be called {id!r}; use letters, digits, '.', '_', '-' and at most one '/'"
        )
    if target.exists() and not (target / MANIFEST).is_file() and any(target.iterdir()):
        raise SettingsInvalid(f"{target} is not empty and not a prepared model; it will not be overwritten")
    checkpoint = load_hub_directory(source)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as scratch:
        directory = Path(scratch) / "new"
        directory.mkdir()
        _write(directory, checkpoint, int8=int8)
        if (source / CARD).is_file():
            shutil.copyfile(source / CARD, directory / CARD)
        manifest = Manifest(
            id=id,
            source=origin,
            config=checkpoint.config,
            labels=checkpoint.labels,
            files={path.name: FileEntry.of(path) for path in sorted(directory.iterdir()) if path.name != CARD},
            tools={"emotion2vec-service": __version__, **{name: metadata.version(name) for name in _TOOLS}},
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            demonstration=demonstration,
        )
        manifest.write(directory)
        _publish(directory, target, Path(scratch))
    logger.info("prepared %s, revision %s, in %s", id, manifest.revision, target)
    return manifest


def _write(directory: Path, checkpoint: Checkpoint, *, int8: bool) -> None:
    """Write weights and graphs, and check the graphs against an encoder with the weights as written."""
    config, path = checkpoint.config, directory / WEIGHTS
    dtype = np.float16 if checkpoint.half else np.float32
    save_file({name: np.ascontiguousarray(w, dtype) for name, w in checkpoint.weights.items()}, path)
    stored = load_file(path)
    weights = {name: torch.from_numpy(w) for name, w in stored.items()}
    encoder = Encoder.from_weights(config, weights, device=torch.device("cpu"), dtype=torch.float32)

    write_onnx(config, checkpoint.weights, directory / ONNX_FP32)
    expected = _expected_results(encoder)
    score, embedding, _ = _compare(expected, directory / ONNX_FP32, config, together=True)
    logger.info("the FP32 graph differs by %.1e in scores and %.1e in embeddings", score, embedding)
    if not (score <= TOLERANCE and embedding <= TOLERANCE):  # so that NaN fails
        raise CheckpointInvalid(
            f"the ONNX graph disagrees with the encoder by {score:.1e} in scores and {embedding:.1e} in embeddings"
        )
    if int8:
        write_onnx(config, checkpoint.weights, directory / ONNX_INT8, precision="int8")
        score, _, cosine = _compare(expected, directory / ONNX_INT8, config, together=False)
        logger.info("the INT8 graph differs by %.1e in scores, the cosine of embeddings is %.3f", score, cosine)
        if not cosine >= _INT8_SIMILARITY:
            raise CheckpointInvalid(f"INT8 changes the embeddings of this model too much (cosine {cosine:.2f})")


def _expected_results(encoder: Encoder) -> list[_Expected]:
    expected = []
    for seed, samples in _CHECK_CLIPS:
        waveform = normalized(speech_like(samples / SAMPLING_RATE, seed))
        with torch.inference_mode():
            features, logits = encoder(torch.from_numpy(waveform)[None])
        expected.append(_Expected(waveform, features[0].mean(dim=0).numpy(), _softmax(logits[0].numpy())))
    return expected


def _compare(
    expected: list[_Expected], graph: Path, config: ModelConfig, *, together: bool
) -> tuple[float, float, float]:
    """Compare a graph with the encoder: largest difference in scores and in embeddings, smallest cosine of embeddings.

    Every check clip is run alone and, with `together`, also all of them in one run.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    score = embedding = 0.0
    cosine = 1.0
    for run in [*([each] for each in expected), *([expected] if together else [])]:
        inputs = lay_out([each.waveform for each in run], config)
        features, logits = session.run(["features", "logits"], inputs.tensors)
        for (_, ours, scores), frames in zip(run, inputs.frames, strict=True):
            theirs = features[frames].mean(axis=0)
            # `max` could drop a NaN, which the caller must see.
            score = float(np.maximum(score, np.abs(scores - _softmax(logits[frames])).max()))
            embedding = float(np.maximum(embedding, np.abs(ours - theirs).max()))
            cosine = float(np.minimum(cosine, ours @ theirs / (np.linalg.norm(ours) * np.linalg.norm(theirs))))
    return score, embedding, cosine


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    mean = logits.mean(axis=0, dtype=np.float64)
    exponentials = np.exp(mean - mean.max())
    scores: NDArray[np.float64] = exponentials / exponentials.sum()
    return scores


def _publish(directory: Path, target: Path, scratch: Path) -> None:
    """Move a finished directory to `target` after moving an older one away; other processes may do the same."""
    for path in directory.iterdir():
        path.chmod(0o644)  # safetensors makes its file readable for its owner only
    for attempt in count():
        with contextlib.suppress(FileNotFoundError):
            target.rename(scratch / f"old-{attempt}")
        try:
            directory.rename(target)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) or attempt == _PUBLISH_ATTEMPTS:
                raise
        else:
            return
