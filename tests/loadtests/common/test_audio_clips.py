import io

import numpy as np
import pytest
import soundfile

from loadtests.bench.implementations import STEREO_RATE
from loadtests.common import audio_clips as clips
from service.preprocess.resample_trim import resample, speech_bounds


@pytest.mark.parametrize("seconds", [0.5, 5.0, 31.0])
def test_speech_has_the_length_asked_for_and_is_always_the_same(seconds: float) -> None:
    samples = clips.speech(seconds)
    assert samples.shape == (round(16_000 * seconds),)
    assert samples.dtype == np.float32
    np.testing.assert_array_equal(samples, clips.speech(seconds))


def test_wav_holds_the_samples() -> None:
    samples, rate = soundfile.read(io.BytesIO(clips.wav(clips.speech(1.0))), dtype="float32")
    assert rate == 16_000
    np.testing.assert_allclose(samples, clips.speech(1.0), atol=1e-4)


def test_stereo_has_silence_to_trim() -> None:
    stereo = clips.stereo_with_silence(3.0, STEREO_RATE)
    assert stereo.shape == (2, 3 * STEREO_RATE)
    mono = resample(stereo.mean(axis=0), STEREO_RATE)
    start, end = speech_bounds(mono[np.newaxis], np.array([mono.size]))[0]
    assert 0.3 < start / 16_000 < 0.9
    assert 0.3 < (mono.size - end) / 16_000 < 0.9


def test_real_clips_are_bundled() -> None:
    found = dict(clips.recorded_clips())
    assert len(found) >= 12, "the examples and the clips of EmoDB"
    assert all(samples.ndim == 1 and samples.size > 16_000 for samples in found.values())
