from __future__ import annotations

import numpy as np
import pytest

from service.model.normalize import normalized
from service.model.synthetic_speech import speech_like


def test_normalized() -> None:
    waveform = normalized(speech_like(1.0) + 0.25)
    assert waveform.dtype == np.float32
    assert waveform.mean() == pytest.approx(0, abs=1e-6)
    assert waveform.std() == pytest.approx(1, abs=1e-2)
    assert np.array_equal(normalized(np.zeros(10, np.float32)), np.zeros(10, np.float32))
