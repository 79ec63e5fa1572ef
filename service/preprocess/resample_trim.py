"""Resample and trim on the CPU with soxr and numpy; `resample_trim_torch` has the same contract and the same tests."""

from __future__ import annotations

import numpy as np
import soxr
from numpy.typing import NDArray

from service.results import SAMPLING_RATE, Floats

FRAME = 512
"""Samples at 16 kHz in one energy frame (32 ms)."""

HOP = 128
"""Samples at 16 kHz from one energy frame to the next (8 ms)."""

MARGIN = 800
"""Samples at 16 kHz added before and after speech (50 ms), so that soft onsets and endings are not cut off."""

QUIET = 1e-4
"""Frames below this fraction of the loudest frame's energy (-40 dB) are not speech, as in the published code."""

SILENCE = 1e-7
"""A clip is silent if the mean square of its loudest frame is below this (-70 dBFS)."""


def resample(samples: Floats, sampling_rate: int) -> Floats:
    """Resample one waveform to 16 kHz.

    Args:
        samples: float32 of shape (time,).
        sampling_rate: of `samples`, in Hz.

    Returns:
        float32 of shape (time * 16000 // sampling_rate,); `samples` itself if the rate is 16 kHz.
    """
    if sampling_rate == SAMPLING_RATE:
        return samples
    resampled: Floats = soxr.resample(samples, sampling_rate, SAMPLING_RATE, quality="HQ")
    # soxr rounds the length and torchaudio rounds it up; the contract is to round it down.
    return resampled[: len(samples) * SAMPLING_RATE // sampling_rate]


def speech_bounds(waveforms: Floats, lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Find where speech begins and ends, by comparing the energy of each frame with that of the loudest.

    Frames are centred as in `librosa.effects.trim(top_db=40, frame_length=512, hop_length=128)`, with zeros beyond both
    ends; the bounds are those of librosa moved outwards by `MARGIN`.

    Args:
        waveforms: float32 of shape (clip, time) at 16 kHz, zero past the end of each clip.
        lengths: samples in each clip, of shape (clip,).

    Returns:
        First sample of speech and the one after the last, of shape (clip, 2); (0, 0) for a silent clip.
    """
    energy = _frame_energy(waveforms)
    frames = np.arange(energy.shape[1])
    energy[frames > lengths[:, None] // HOP] = 0
    loudest = energy.max(axis=1, keepdims=True)
    loud = energy > QUIET * loudest
    first = loud.argmax(axis=1)
    last = frames[-1] - loud[:, ::-1].argmax(axis=1)
    begin = np.maximum(first * HOP - MARGIN, 0)
    end = np.minimum((last + 1) * HOP + MARGIN, lengths)
    silent = loudest[:, 0] < SILENCE * FRAME
    return np.where(silent[:, None], 0, np.stack([begin, end], axis=1)).astype(np.int64)


def _frame_energy(waveforms: Floats) -> NDArray[np.float64]:
    """Sum of squares of each frame, (clip, 1 + time // HOP), from the sums over hops: a frame is four hops."""
    clips, time = waveforms.shape
    whole = time // HOP
    # Two hops of zeros before and one after the waveform, whose last hop may be incomplete.
    hops = np.zeros((clips, whole + 4))
    blocks = waveforms[:, : whole * HOP].reshape(clips, whole, HOP)
    hops[:, 2 : 2 + whole] = np.einsum("ckh,ckh->ck", blocks, blocks)
    rest = waveforms[:, whole * HOP :]
    hops[:, 2 + whole] = np.einsum("ch,ch->c", rest, rest)
    return hops[:, :-3] + hops[:, 1:-2] + hops[:, 2:-1] + hops[:, 3:]
