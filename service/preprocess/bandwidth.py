"""Detect telephone audio by its spectrum: at any sampling rate, a file may contain the narrow band of a telephone."""

from __future__ import annotations

import numpy as np

from service.results import Floats

EDGE = 4_500
"""Hz. Narrow-band audio has nothing above it. Telephones end at 3,400 and 8 kHz audio at 4,000; up to here resamplers
leave some of the mirror image."""

_TOP = 8_000
"""Hz. Power above says little about speech, and may be noise of converters."""

_VOICE = (300, 3_400)
"""Hz; above mains hum."""

_FRAME_SECONDS = 0.016
_MOST_FRAMES = 48
"""48 frames take 0.14 ms for 5 s at 16 kHz; 128 take 0.6 ms and give the same result for 595 studio clips."""

_VALUES = 1 << 16
"""Most samples that are analysed, over all channels: many channels at high rates get fewer frames."""

_LOUDEST = 10
"""The mean over the loudest tenth of the frames is compared: speech above the edge mostly comes in short fricatives."""

_RATIO = 10**-3
"""Least power above the edge, relative to the power of the voice, of wide-band audio. Of 595 studio clips none has less
than 10**-2.1 (in 128 frames). Sent through a telephone (8 kHz, G.711, GSM) and resampled to 16 or 44.1 kHz by soxr,
none of 4,760 is wide; resampled by FFmpeg, which filters less and clips, 20 are, and 19 of 20 have less than 10**-4."""

_FLOOR = 10**-9.3
"""Power above the edge below which it may be the rounding to 16 bits; full scale is 1."""


def is_narrow(samples: Floats, sampling_rate: int) -> bool:
    """Return whether the audio has no power above the band of telephones.

    Every part of a narrow-band recording is narrow, including silence.

    Args:
        samples: of shape (channel, time), of any length. Some frames of 16 ms, spread over all of it, are analysed.
        sampling_rate: in Hz.

    Returns:
        False if in any channel the loudest tenth of the frames has a mean power above 4.5 kHz of more than -30 dB
        relative to the voice.
    """
    if sampling_rate <= 2 * EDGE:
        return True
    frames = _frames(samples, sampling_rate)
    length = frames.shape[2]
    window = np.hanning(length).astype(np.float32)
    with np.errstate(all="ignore"):  # samples may be infinite or NaN
        spectrum = np.fft.rfft(frames * window, axis=2)
        power = np.square(spectrum.real) + np.square(spectrum.imag)
        # By Parseval's theorem the power of a band becomes the mean square of its samples.
        power *= np.float32(2 / (length * np.square(window).sum()))
        bin_width = sampling_rate / length
        voice = power[:, :, round(_VOICE[0] / bin_width) : round(_VOICE[1] / bin_width)].sum(axis=2)
        above = power[:, :, round(EDGE / bin_width) : round(_TOP / bin_width)].sum(axis=2)
        loudest = max(1, above.shape[1] // _LOUDEST)
        above_edge = np.partition(above, -loudest, axis=1)[:, -loudest:].mean(axis=1)
        return not bool(np.any(above_edge > np.maximum(_RATIO * voice.mean(axis=1), _FLOOR)))


def _frames(samples: Floats, sampling_rate: int) -> Floats:
    """Return frames at even distances: (channel, frame, time), of a power of two samples."""
    channels, time = samples.shape
    length = 1 << round(np.log2(_FRAME_SECONDS * sampling_rate))
    if time < length:
        padded: Floats = np.zeros((channels, 1, length), np.float32)
        padded[:, 0, :time] = samples
        return padded
    count = min(_MOST_FRAMES, max(8, _VALUES // (channels * length)), 1 + time // length)
    starts = np.linspace(0, time - length, count).astype(np.intp)
    chosen: Floats = samples[:, starts[:, None] + np.arange(length)]
    return chosen
