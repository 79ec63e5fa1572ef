"""A small prepared model with random weights, and clips of all kinds, for the tests of the torch backend."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from loadtests.common.hub_checkpoints import LABELS, make_weights, model_conf, write_hub_directory
from service.model.config import ModelConfig
from service.model.manifest import Manifest
from service.model.synthetic_speech import speech_like
from service.results import Clip, ClipOutput, Floats
from tests.rounding import embedding_tolerance, feature_tolerance, logit_tolerance

CONFIG = ModelConfig.from_hub(model_conf())


@cache
def weights() -> dict[str, Floats]:
    """The model's weights by name. Needs torch."""
    return make_weights(CONFIG, len(LABELS))


def prepare_small(base: Path) -> tuple[Path, Manifest]:
    """Prepare the model; returns its directory and manifest. Needs torch."""
    from service.model.prepare import prepare

    write_hub_directory(base / "hub", model_conf(), weights())
    return base / "model", prepare(base / "hub", base / "model", id="small", int8=False)


def silence_around(speech: Floats, before: float, after: float, rate: int = 16_000) -> Floats:
    """`speech` with digital silence of `before` and `after` seconds around it."""
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


def assert_same_answers(found: Sequence[ClipOutput], expected: Sequence[ClipOutput]) -> None:
    """Two answers of the small model to the same clips differ by rounding only."""
    for one, other in zip(found, expected, strict=True):
        assert (one.speech, one.scored) == (other.speech, other.scored)
        frames = other.logits.shape[0]
        tokens = frames + CONFIG.num_extra_tokens
        of_logits = logit_tolerance(CONFIG, tokens, weights()["proj.weight"])
        np.testing.assert_allclose(one.logits, other.logits, atol=of_logits, rtol=0)
        np.testing.assert_allclose(one.embedding, other.embedding, atol=embedding_tolerance(CONFIG, frames), rtol=0)
        assert (one.frame_embeddings is None) == (other.frame_embeddings is None)
        if one.frame_embeddings is not None and other.frame_embeddings is not None:
            of_features = feature_tolerance(CONFIG, tokens)
            np.testing.assert_allclose(one.frame_embeddings, other.frame_embeddings, atol=of_features, rtol=0)
