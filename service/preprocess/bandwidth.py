"""Tell telephone audio from full-band audio by its spectrum: at any rate, a file may hold what came through a call."""

from __future__ import annotations

import numpy as np

from service.results import Floats

_EDGE = 4_500
"""Hz. Telephones end at 3,400, and 8 kHz audio at 4,000; up to here, resamplers leave something of its mirror image."""

_TOP = 8_000
"""Hz. What is further up says little about speech, and may be noise of converters."""

_VOICE = (300, 3_400)
"""Hz; without the hum below."""

_FRAME_SECONDS = 0.016
_MOST_FRAMES = 48
"""They take 0.14 ms of 5 s at 16 kHz. 128 take 0.6 and say the same of 595 studio clips and of these through mu-law."""

_VALUES = 1 << 16
"""Samples looked at, over all channels; fewer frames are taken of many channels at high rates."""

_LOUDEST = 10
"""The loudest of so many frames count above the edge: what is there mostly comes in short hisses."""

_RATIO = 10**-3
"""Power above the edge against the voice's, from which on it is heard. Of 595 studio clips none has less than 10**-2.1
(in 128 frames). Sent through a telephone (8 kHz, G.711, GSM) and brought to 16 or 44.1 kHz by soxr, none of 4,760 is
wide; by FFmpeg, which filters less and clips, 20 do, and 19 of 20 have less than 10**-4."""

_FLOOR = 10**-9.3
"""Power above the edge below which it may be the rounding to 16 bits; full scale is 1."""


def is_narrow(samples: Floats, sampling_rate: int) -> bool:
    """Say whether nothing is heard above the band of telephones.

    So it is with each stretch of a narrow recording, silence included: silence holds nothing above the band either.

    Args:
        samples: of shape (channel, time), of any length. Some frames of 16 ms are looked at, spread over all of it.
        sampling_rate: in Hz.

    Returns:
        False if a tenth of the frames of any channel has sound above 4.5 kHz, less than 30 dB below the voice.
    """
    if sampling_rate <= 2 * _EDGE or not samples.size:
        return True
    frames = _frames(samples, sampling_rate)
    length = frames.shape[2]
    window = np.hanning(length).astype(np.float32)
    with np.errstate(all="ignore"):  # samples may be anything
        spectrum = np.fft.rfft(frames * window, axis=2)
        power = np.square(spectrum.real) + np.square(spectrum.imag)
        # By Parseval, so that a band's power is that of its samples' mean square.
        power *= np.float32(2 / (length * np.square(window).sum()))
        bin_width = sampling_rate / length
        voice = power[:, :, round(_VOICE[0] / bin_width) : round(_VOICE[1] / bin_width)].sum(axis=2)
        above = power[:, :, round(_EDGE / bin_width) : round(_TOP / bin_width)].sum(axis=2)
        loudest = max(1, above.shape[1] // _LOUDEST)
        hiss = np.partition(above, -loudest, axis=1)[:, -loudest:].mean(axis=1)
        return not bool(np.any(hiss > np.maximum(_RATIO * voice.mean(axis=1), _FLOOR)))


def _frames(samples: Floats, sampling_rate: int) -> Floats:
    """Take frames at even distances: (channel, frame, time), a power of two long."""
    channels, time = samples.shape
    length = 1 << round(np.log2(_FRAME_SECONDS * sampling_rate))
    if time < length:
        padded: Floats = np.zeros((channels, 1, length), np.float32)
        padded[:, 0, :time] = samples
        return padded
    count = min(_MOST_FRAMES, max(8, _VALUES // (channels * length)), 1 + time // length)
    starts = np.linspace(0, time - length, count).astype(np.intp)
    taken: Floats = samples[:, starts[:, None] + np.arange(length)]
    return taken
