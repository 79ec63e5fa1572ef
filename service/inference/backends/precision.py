"""Loads the encoder in the fastest precision that keeps the model's scores.

Some models overflow in half precision without any error, and some lose the difference between two labels. So before
half precision serves requests, its scores on speech are compared with those of FP32 on the same device.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from service.data import EXAMPLES
from service.errors import SettingsInvalid
from service.model.config import ModelConfig
from service.model.labels import masked_labels
from service.model.manifest import Manifest
from service.model.network.encoder import Encoder
from service.model.speech_clips import speech_clips
from service.model.synthetic_speech import speech_like
from service.results import SAMPLING_RATE, Floats

logger = logging.getLogger(__name__)

Dtype = Literal["auto", "fp32", "fp16", "bf16"]

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
TOLERANCE = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 1e-2}
"""The largest error of a score that is accepted in each precision."""

_LONG_SECONDS = 60.0


def load_encoder(path: Path, manifest: Manifest, device: torch.device, dtype: Dtype) -> tuple[Encoder, str]:
    """Load the encoder in a given precision, or in the first whose scores are accurate enough.

    Args:
        path: the weights, as safetensors.
        manifest: the manifest of the model.
        device: where the encoder runs.
        dtype: `auto` is FP32 on the CPU; on CUDA the first of FP16, BF16 and FP32 whose scores are accurate enough.

    Returns:
        The encoder and the name of its precision.

    Raises:
        SettingsInvalid: if the precision asked for changes the scores.
        CheckpointInvalid: if the weights are not those that the manifest describes.
    """
    weights = load_file(path)
    reference = Encoder.from_weights(manifest.config, weights, device=device, dtype=torch.float32)
    if dtype == "fp32" or (dtype == "auto" and device.type == "cpu"):
        return reference, "fp32"
    masked = masked_labels(manifest.labels)
    answered = [index for index in range(len(manifest.labels)) if index not in masked]
    difference = float("nan")
    for name in ("fp16", "bf16") if dtype == "auto" else (dtype,):
        encoder = Encoder.from_weights(manifest.config, weights, device=device, dtype=DTYPES[name])
        difference = score_difference(reference, encoder, manifest.config, answered)
        if difference <= TOLERANCE[DTYPES[name]]:
            return encoder, name
        logger.warning("%s changes the scores of %s by %.1e", name, manifest.id, difference)
    if dtype == "auto":
        logger.warning("%s runs in fp32: no other precision keeps its scores on %s", manifest.id, device)
        return reference, "fp32"
    raise SettingsInvalid(
        f"in {dtype} the scores of {manifest.id} differ by {difference:.1e} from those in fp32 on {device}; "
        "choose another dtype"
    )


@cache
def short_clips() -> tuple[Floats, ...]:
    """The bundled examples and four synthetic voices: float32 (time,) at 16 kHz, some seconds each."""
    return (*speech_clips(EXAMPLES), *(speech_like(4.0, seed) for seed in range(4)))


def long_clip(seconds: float, seed: int = 0) -> Floats:
    """The short clips one after another, repeated up to a length in seconds; `seed` shifts where they start."""
    speech = np.concatenate(short_clips())
    return np.resize(np.roll(speech, -seed * SAMPLING_RATE), round(seconds * SAMPLING_RATE))


def score_difference(reference: Encoder, encoder: Encoder, config: ModelConfig, answered: Sequence[int]) -> float:
    """Largest difference in scores between two encoders on a single clip, a padded batch of clips, and a long clip.

    Args:
        reference: the encoder that is taken as correct.
        encoder: the encoder to check, on the same device.
        config: the dimensions of both.
        answered: indices of the labels that the model answers.

    Returns:
        The difference; NaN if either gives a value that is not finite.
    """
    short = list(short_clips())
    differences = []
    for clips in ([short[0]], short, [long_clip(_LONG_SECONDS)]):
        expected, found = (_scores(each, config, clips, answered) for each in (reference, encoder))
        differences.append((expected - found).abs().max())
    return float(torch.stack(differences).max())


def _scores(encoder: Encoder, config: ModelConfig, clips: Sequence[Floats], answered: Sequence[int]) -> Tensor:
    weight = encoder.get_parameter("blocks.0.mlp.fc1.weight")
    waveforms = [torch.from_numpy(clip).to(weight.device) for clip in clips]
    if config.normalize:
        waveforms = [functional.layer_norm(waveform, waveform.shape) for waveform in waveforms]
    batch = pad_sequence(waveforms, batch_first=True).to(weight.dtype)
    frames = torch.tensor([config.frames(clip.shape[0]) for clip in clips], device=weight.device)
    with torch.no_grad():
        found = encoder.encode(batch, frames if len(clips) > 1 else None)
    padded = torch.arange(found.logits.shape[1], device=weight.device) >= frames[:, None]
    total = found.logits.masked_fill(padded[:, :, None], 0.0).sum(dim=1)
    # The embedding is an answer too, and it may overflow where the scores do not.
    finite = found.embeddings.isfinite().all(dim=1, keepdim=True)
    scores = (total / frames[:, None])[:, answered].softmax(dim=-1)
    return scores.masked_fill(~finite, float("nan"))
