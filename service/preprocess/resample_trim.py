"""Resample and trim on the CPU with soxr and numpy; `resample_trim_torch` has the same contract and the same tests."""

from __future__ import annotations

import numpy as np
import soxr
from numpy.lib.stride_tricks import sliding_window_view
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

HELD = 12
"""Frames without a break (0.12 s) over which a level is held. Clicks of up to 60 ms reach fewer frames."""

CLICK = 10**1.8
"""A frame that exceeds the highest level held by this factor (18 dB) is a click. Of 1,741 clean clips of EmoDB and
RAVDESS, the loudest frame is 4 dB above it in the median and 15.2 dB at most."""

OFFSET = 0.5
"""The mean of a clip is an offset that matters if its energy in a frame exceeds this fraction of the threshold: far
below, it cannot make a quiet frame loud. 2 of 1,741 clean clips have so large a mean."""


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
    ends; the bounds are those of librosa moved outwards by `MARGIN`, with two exceptions:

    - If the clip has an offset that matters (`OFFSET`), its mean does not count as energy. Smaller means are those of
      sounds below 30 Hz and of single frames, which count as they do in librosa.
    - If the loudest frame is a click (`CLICK`), the highest level that is held (`HELD`) takes its place. Clips shorter
      than that have no clicks.

    Args:
        waveforms: float32 of shape (clip, time) at 16 kHz, zero past the end of each clip.
        lengths: samples in each clip, of shape (clip,).

    Returns:
        First sample of speech and the one after the last, of shape (clip, 2); (0, 0) for a silent clip.
    """
    energy = _frame_energy(waveforms, lengths)
    loudness = _loudness(energy, lengths)
    offset = waveforms.sum(axis=1, dtype=np.float64) / lengths
    shifted = FRAME * np.square(offset) > OFFSET * QUIET * loudness
    if shifted.any():
        without = np.minimum(energy, _frame_energy_without_offset(waveforms, lengths, offset))
        energy = np.where(shifted[:, None], without, energy)
        loudness = _loudness(energy, lengths)
    loud = energy > QUIET * loudness[:, None]
    first = loud.argmax(axis=1)
    last = energy.shape[1] - 1 - loud[:, ::-1].argmax(axis=1)
    begin = np.maximum(first * HOP - MARGIN, 0)
    end = np.minimum((last + 1) * HOP + MARGIN, lengths)
    silent = loudness < SILENCE * FRAME
    return np.where(silent[:, None], 0, np.stack([begin, end], axis=1)).astype(np.int64)


def _loudness(energy: NDArray[np.float64], lengths: NDArray[np.int64]) -> NDArray[np.float64]:
    """Energy of the loudest frame of each clip that is not a click, of shape (clip,)."""
    loudest: NDArray[np.float64] = energy.max(axis=1)
    if energy.shape[1] < HELD:
        return loudest
    held = sliding_window_view(energy, HELD, axis=1).min(axis=2).max(axis=1)
    click = (loudest > CLICK * held) & (lengths // HOP + 1 >= HELD)
    loudest[click] = held[click]
    return loudest


def _frame_energy(waveforms: Floats, lengths: NDArray[np.int64]) -> NDArray[np.float64]:
    """Sum of squares of each frame, (clip, 1 + time // HOP), zero past the end of each clip."""
    blocks, rest = _hops(waveforms)
    squares = np.einsum("ckh,ckh->ck", blocks, blocks), np.einsum("ch,ch->c", rest, rest)
    return _within(_frame_sums(*squares), lengths)


def _frame_energy_without_offset(
    waveforms: Floats, lengths: NDArray[np.int64], offset: NDArray[np.float64]
) -> NDArray[np.float64]:
    """As `_frame_energy`, without the offset of each clip, of shape (clip,).

    Where the offset changes within a clip, the mean of a frame alone would still make it loud; such a frame has the
    energy of its samples about their mean.
    """
    inside = np.arange(waveforms.shape[1]) < lengths[:, None]
    blocks, rest = _hops(np.where(inside, waveforms - offset[:, None], 0))
    energy = _within(_frame_sums(np.einsum("ckh,ckh->ck", blocks, blocks), np.einsum("ch,ch->c", rest, rest)), lengths)
    begin = np.arange(energy.shape[1]) * HOP - FRAME // 2
    counts = np.minimum(begin + FRAME, lengths[:, None]) - np.maximum(begin, 0)
    of_mean = np.square(_frame_sums(blocks.sum(axis=2), rest.sum(axis=1))) / np.maximum(counts, 1)
    loud_mean = of_mean > QUIET * _loudness(energy, lengths)[:, None]
    return np.where(loud_mean, np.maximum(energy - of_mean, 0), energy)


def _hops(waveforms: NDArray[np.floating]) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Split into whole hops, (clip, hop, HOP), and the rest, (clip, time)."""
    clips, time = waveforms.shape
    whole = time // HOP
    return waveforms[:, : whole * HOP].reshape(clips, whole, HOP), waveforms[:, whole * HOP :]


def _frame_sums(hops: NDArray[np.floating], rest: NDArray[np.floating]) -> NDArray[np.float64]:
    """Sums over frames, (clip, 1 + hop), from those over hops and over the rest: a frame is four hops."""
    clips, whole = hops.shape
    # Two hops of zeros before and one after the waveform, whose last hop may be incomplete.
    padded = np.zeros((clips, whole + 4))
    padded[:, 2 : 2 + whole] = hops
    padded[:, 2 + whole] = rest
    return padded[:, :-3] + padded[:, 1:-2] + padded[:, 2:-1] + padded[:, 3:]


def _within(frames: NDArray[np.float64], lengths: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the frames with zeros past the end of each clip."""
    return np.where(np.arange(frames.shape[1]) > lengths[:, None] // HOP, 0, frames)
