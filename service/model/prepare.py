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
from collections.abc import Sequence
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
from service.data import EXAMPLES, SPEECH
from service.errors import CheckpointInvalid, SettingsInvalid
from service.model.checkpoint import Checkpoint, load_hub_directory
from service.model.config import ModelConfig
from service.model.labels import masked_labels
from service.model.manifest import CARD, MANIFEST, MODEL_ID, ONNX_FP32, ONNX_INT8, WEIGHTS, FileEntry, Manifest
from service.model.network.encoder import Encoder
from service.model.network.input_means import input_means
from service.model.normalize import normalized
from service.model.onnx.graph import write_onnx
from service.model.onnx.inputs import lay_out
from service.model.speech_clips import speech_clips
from service.model.synthetic_speech import speech_like
from service.results import SAMPLING_RATE, Floats, Int8Error

logger = logging.getLogger(__name__)

TOLERANCE = 1e-4
"""The largest accepted difference of the FP32 graph from the encoder, in scores and embeddings."""

_INT8_SIMILARITY = 0.9
"""The smallest accepted cosine of the INT8 graph's embeddings and the encoder's."""

_CHECK_CLIPS = ((0, 400), (1, 401), (2, 16_000), (3, 50_123))
"""Seeds and lengths in samples of the waveforms on which the graphs the FP32 graph is checked."""

_PUBLISH_ATTEMPTS = 20
_TOOLS = ("torch", "onnx", "onnxruntime", "safetensors", "numpy")


class _Expected(NamedTuple):
    """A check clip as the encoder takes it, and the encoder's results for it."""

    waveform: Floats
    embedding: Floats
    scores: NDArray[np.float64]


class Difference(NamedTuple):
    """How far a graph is from the encoder: largest differences, smallest cosine of embeddings, share of same labels."""

    score: float
    embedding: float
    cosine: float
    equal_labels: float


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
        int8_error = _write(directory, checkpoint, int8=int8)
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
            int8_error=int8_error,
        )
        manifest.write(directory)
        _publish(directory, target, Path(scratch))
    logger.info("prepared %s, revision %s, in %s", id, manifest.revision, target)
    return manifest


def _write(directory: Path, checkpoint: Checkpoint, *, int8: bool) -> Int8Error | None:
    """Write weights and graphs, and check the graphs against an encoder with the weights as written."""
    config, path = checkpoint.config, directory / WEIGHTS
    dtype = np.float16 if checkpoint.half else np.float32
    save_file({name: np.ascontiguousarray(w, dtype) for name, w in checkpoint.weights.items()}, path)
    stored = load_file(path)
    weights = {name: torch.from_numpy(w) for name, w in stored.items()}
    encoder = Encoder.from_weights(config, weights, device=torch.device("cpu"), dtype=torch.float32)

    write_onnx(config, checkpoint.weights, directory / ONNX_FP32)
    synthetic = [speech_like(samples / SAMPLING_RATE, seed) for seed, samples in _CHECK_CLIPS]
    found = _compare(directory / ONNX_FP32, encoder, checkpoint, synthetic)
    logger.info("the FP32 graph differs by %.1e in scores and %.1e in embeddings", found.score, found.embedding)
    if not (found.score <= TOLERANCE and found.embedding <= TOLERANCE):  # so that NaN fails
        raise CheckpointInvalid(
            f"the ONNX graph disagrees with the encoder by {found.score:.1e} in scores "
            f"and {found.embedding:.1e} in embeddings"
        )
    return _write_int8(directory, checkpoint, encoder) if int8 else None


def _write_int8(directory: Path, checkpoint: Checkpoint, encoder: Encoder) -> Int8Error:
    """Write the INT8 graph, calibrated with the bundled examples, and measure its error on clips of other speakers."""
    means = input_means(encoder, [_encoder_input(clip, checkpoint.config) for clip in speech_clips(EXAMPLES)])
    write_onnx(checkpoint.config, checkpoint.weights, directory / ONNX_INT8, means)
    clips = speech_clips(SPEECH)
    found = _compare(directory / ONNX_INT8, encoder, checkpoint, clips)
    if not found.cosine >= _INT8_SIMILARITY:
        raise CheckpointInvalid(f"INT8 changes the embeddings of this model too much (cosine {found.cosine:.2f})")
    error = Int8Error(round(found.score, 6), round(found.equal_labels, 6), len(clips))
    logger.log(logging.WARNING if error.is_large else logging.INFO, "the INT8 graph: %s", error)
    return error


def _encoder_input(clip: Floats, config: ModelConfig) -> Floats:
    return normalized(clip) if config.normalize else clip


def _compare(graph: Path, encoder: Encoder, checkpoint: Checkpoint, clips: Sequence[Floats]) -> Difference:
    """Compare a graph with the encoder on clips (time,) at 16 kHz, each of them alone and all in one run."""
    masked = masked_labels(checkpoint.labels)
    answered = [index for index in range(len(checkpoint.labels)) if index not in masked]
    expected = []
    for clip in clips:
        waveform = _encoder_input(clip, checkpoint.config)
        with torch.inference_mode():
            features, logits = encoder(torch.from_numpy(waveform)[None])
        expected.append(_Expected(waveform, features[0].mean(dim=0).numpy(), _softmax(logits[0].numpy()[:, answered])))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    score = embedding = 0.0
    cosine, same, compared = 1.0, 0, 0
    for run in [*([each] for each in expected), expected]:
        inputs = lay_out([each.waveform for each in run], checkpoint.config)
        features, logits = session.run(["features", "logits"], inputs.tensors)
        for (_, ours, scores), frames in zip(run, inputs.frames, strict=True):
            theirs, their_scores = features[frames].mean(axis=0), _softmax(logits[frames][:, answered])
            # `max` could drop a NaN, which the caller must see.
            score = float(np.maximum(score, np.abs(scores - their_scores).max()))
            embedding = float(np.maximum(embedding, np.abs(ours - theirs).max()))
            cosine = float(np.minimum(cosine, ours @ theirs / (np.linalg.norm(ours) * np.linalg.norm(theirs))))
            same += int(scores.argmax() == their_scores.argmax())
            compared += 1
    return Difference(score, embedding, cosine, same / compared)


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
