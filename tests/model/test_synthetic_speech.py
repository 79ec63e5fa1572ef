from __future__ import annotations

import numpy as np
import pytest

from service.model.synthetic_speech import speech_like


@pytest.mark.parametrize("samples", [1, 400, 401, 16_000])
def test_the_waveform_has_the_requested_length_and_is_deterministic(samples: int) -> None:
    waveform = speech_like(samples / 16_000, seed=3)
    assert waveform.shape == (samples,)
    assert waveform.dtype == np.float32
    assert np.abs(waveform).max() == pytest.approx(0.5)
    assert np.array_equal(waveform, speech_like(samples / 16_000, seed=3))


def test_seeds_differ() -> None:
    correlation = np.corrcoef(speech_like(1.0, 0), speech_like(1.0, 1))[0, 1]
    assert abs(correlation) < 0.3
