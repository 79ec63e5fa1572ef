"""A small prepared model with random weights, and clips of all kinds, for the tests of the torch backend."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from loadtests.common.hub_checkpoints import LABELS, make_weights, model_conf, write_hub_directory
from service.model.config import ModelConfig
from service.model.manifest import Manifest
from service.model.synthetic_speech import speech_like
from service.results import Clip, Floats


def prepare_small(base: Path) -> tuple[Path, Manifest]:
    """Its directory and manifest; needs torch."""
    from service.model.prepare import prepare

    conf = model_conf()
    write_hub_directory(base / "hub", conf, make_weights(ModelConfig.from_hub(conf), len(LABELS)))
    return base / "model", prepare(base / "hub", base / "model", id="small", int8=False)


def silence_around(speech: Floats, before: float, after: float, rate: int = 16_000) -> Floats:
    """`speech` with so many seconds of digital silence around it."""
    return np.concatenate(
        [np.zeros(round(before * rate), np.float32), speech, np.zeros(round(after * rate), np.float32)]
    )


CLIPS = [
    Clip(speech_like(1.0, 0), 16_000),
    Clip(silence_around(speech_like(0.5, 1), 0.4, 0.3), 16_000),
    Clip(speech_like(0.8, 2), 44_100, frame_embeddings=True),
    Clip(np.zeros(8000, np.float32), 16_000),
    Clip(speech_like(0.3, 3), 8000, trim=False),
    Clip(speech_like(0.025, 4)[:400], 16_000),
    Clip(speech_like(3.1, 5), 16_000, frame_embeddings=True),
]
