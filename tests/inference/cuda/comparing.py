"""Marks and clips of the tests on a GPU, and the comparison of its answers with those of the CPU."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from loadtests.common.hub_checkpoints import emodb_clips
from service.inference.backends.compile_options import CompileOptions
from service.model.synthetic_speech import speech_like
from service.results import Clip, ClipOutput, Floats
from tests.inference.small_model import CLIPS

MARKS = [
    pytest.mark.torch,
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
    # Warnings inside torch's compiler depend on the GPU.
    pytest.mark.filterwarnings("default"),
]

FEW = CompileOptions(clips=4, seconds=5.0)
OFF = CompileOptions(choice="off")
MIXED = [
    *CLIPS,
    *(Clip(samples, 16_000) for samples in emodb_clips()),
    *(Clip(speech_like(0.3 + 0.37 * index, index), 16_000, frame_embeddings=index % 4 == 0) for index in range(16)),
    Clip(speech_like(12.0, 3), 48_000),
]
"""Clips with and without compiled programs, in many groups."""


def scores(logits: Floats) -> Floats:
    return np.asarray(torch.from_numpy(logits).mean(dim=0).softmax(dim=0))


def check(found: Sequence[ClipOutput], expected: Sequence[ClipOutput], tolerance: float) -> None:
    for one, other in zip(found, expected, strict=True):
        assert (one.speech is None) == (other.speech is None)
        # Where an energy is at the threshold, rounding may move a bound of speech by one hop of 8 ms.
        assert one.scored.start == pytest.approx(other.scored.start, abs=0.0081)
        assert one.scored.end == pytest.approx(other.scored.end, abs=0.0081)
        difference = np.abs(scores(one.logits) - scores(other.logits)).max()
        assert difference <= tolerance
        ordered = np.sort(scores(other.logits))
        assert scores(one.logits).argmax() == scores(other.logits).argmax() or ordered[-1] - ordered[-2] < tolerance
        cosine = one.embedding @ other.embedding / np.linalg.norm(one.embedding) / np.linalg.norm(other.embedding)
        assert cosine > 1 - tolerance
        assert (one.frame_embeddings is None) == (other.frame_embeddings is None)
        if one.frame_embeddings is not None:
            assert one.frame_embeddings.shape[0] == one.logits.shape[0]
            np.testing.assert_allclose(one.frame_embeddings.mean(axis=0), one.embedding, atol=0.05, rtol=0)
