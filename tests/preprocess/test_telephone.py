"""Telephone audio as call recorders write it: every codec and container, mono and stereo, short and long."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from service.preprocess.bandwidth import is_narrow
from service.preprocess.decode import decode
from service.preprocess.reader import open_reader
from service.results import Floats
from tests.audio_samples import AMR, encode_av, encode_soundfile, repacked, speech
from tests.preprocess.test_decode import similarity

RATE = 8_000
_HEAD = b"#!AMR\n"


def _amr(samples: Floats) -> bytes:
    """There is no encoder; the file is the first clip, repeated as often as `samples` repeat it."""
    times = round(float(samples.shape[1] / speech(RATE).shape[1]))
    return _HEAD + times * AMR.read_bytes()[len(_HEAD) :]


# How to encode (channel, time), the least correlation of decoded with original samples, and the most channels.
CALLS: dict[str, tuple[Callable[[Floats], bytes], float, int]] = {
    "wav": (lambda samples: encode_soundfile(samples, RATE, "WAV", "PCM_16"), 0.9999, 2),
    "wav a-law": (lambda samples: encode_soundfile(samples, RATE, "WAV", "ALAW"), 0.999, 2),
    "wav mu-law": (lambda samples: encode_soundfile(samples, RATE, "WAV", "ULAW"), 0.999, 2),
    "au a-law": (lambda samples: encode_soundfile(samples, RATE, "AU", "ALAW"), 0.999, 2),
    "au mu-law": (lambda samples: encode_soundfile(samples, RATE, "AU", "ULAW"), 0.999, 2),
    "aiff mu-law": (lambda samples: encode_soundfile(samples, RATE, "AIFF", "ULAW"), 0.999, 2),
    "caf a-law": (lambda samples: encode_soundfile(samples, RATE, "CAF", "ALAW"), 0.999, 2),
    "w64 mu-law": (lambda samples: encode_soundfile(samples, RATE, "W64", "ULAW"), 0.999, 2),
    "mov a-law": (lambda samples: encode_av(samples, RATE, "mov", "pcm_alaw"), 0.999, 2),
    "mov mu-law": (lambda samples: encode_av(samples, RATE, "mov", "pcm_mulaw"), 0.999, 2),
    "wav gsm": (lambda samples: encode_soundfile(samples, RATE, "WAV", "GSM610"), 0.8, 1),
    "gsm": (lambda samples: encode_soundfile(samples, RATE, "RAW", "GSM610"), 0.8, 1),
    "wav g726": (lambda samples: encode_av(samples, RATE, "wav", "g726"), 0.95, 1),
    "amr": (_amr, 0.7, 1),
    "3gp amr": (lambda samples: repacked(_amr(samples), "3gp"), 0.7, 1),
}
QUICK = ("wav", "wav a-law", "mov mu-law", "gsm", "amr")
"""Those that the core suite also reads at full length."""

cases = [(name, channels) for name, (_, _, most) in CALLS.items() for channels in range(1, most + 1)]


@pytest.mark.parametrize(("name", "channels"), cases)
def test_call(name: str, channels: int) -> None:
    encode, correlation, _ = CALLS[name]
    original = speech(RATE, channels)
    original = original[:, : original.shape[1] // 2 * 2]  # libsndfile decodes the padding byte of AIFF as a sample
    waveform = decode(encode(original), max_duration=10)
    assert (waveform.sampling_rate, waveform.channels) == (RATE, channels)
    # Codecs with frames of 20 ms fill up the last one, and AMR adds one more.
    assert abs(waveform.duration - original.shape[1] / RATE) < 0.05
    for before, after in zip(original, waveform.samples, strict=True):
        assert similarity(before, after) > correlation
    assert is_narrow(waveform.samples, RATE)


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in CALLS]
)
def test_long_call(name: str) -> None:
    """More than five minutes, read in blocks."""
    encode, _, channels = CALLS[name]
    once = speech(RATE, channels)
    times = 1 + 300 * RATE // once.shape[1]
    data = encode(np.tile(once, times))
    with open_reader(data, max_duration=310) as reader:
        assert (reader.sampling_rate, reader.channels) == (RATE, channels)
        blocks = list(reader.blocks())
    samples = np.concatenate(blocks, axis=1)
    # Each repetition of the clip of 1.44 s is 20 ms longer in AMR: 1.4 %.
    assert samples.shape[1] == pytest.approx(times * once.shape[1], rel=0.02)
    assert len(blocks) == 31
    assert np.array_equal(samples, decode(data, max_duration=310).samples)
