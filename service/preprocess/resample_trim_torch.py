"""Resample and trim with torch on the device of the model; the contract is that of `resample_trim`."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor
from torchaudio.transforms import Resample

from service.preprocess import resample_trim
from service.preprocess.resample_trim import CLICK, FRAME, HELD, HOP, MARGIN, OFFSET, QUIET, SILENCE
from service.results import SAMPLING_RATE

# Found by a search for the least difference from soxr's HQ filter: 60 to 73 dB below white noise at 8 to 48 kHz.
_WIDTH = 88
_ROLLOFF = 0.9569
_BETA = 11.7

_LARGEST_KERNEL = 1 << 22
"""Most coefficients of a kernel (16 MiB): 44,100 Hz needs 150,000, but 44,101 Hz 0.7e9 (its gcd with 16,000 is 1)."""


def resample(waveform: Tensor, sampling_rate: int) -> Tensor:
    """Resample one waveform to 16 kHz on its device.

    Rates that share no large factor with 16 kHz would need too large a kernel; such waveforms are resampled on the CPU.

    Args:
        waveform: float32 of shape (time,), on any device.
        sampling_rate: of `waveform`, in Hz.

    Returns:
        float32 of shape (time * 16000 // sampling_rate,) on the same device; `waveform` itself if the rate is 16 kHz.
    """
    if sampling_rate == SAMPLING_RATE:
        return waveform
    if _kernel_size(sampling_rate) > _LARGEST_KERNEL:
        return torch.from_numpy(resample_trim.resample(waveform.cpu().numpy(), sampling_rate)).to(waveform.device)
    # By default the convolution would use TF32, which has 11 of 24 bits.
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        resampled: Tensor = _resampler(sampling_rate, waveform.device)(waveform)
    return resampled[: len(waveform) * SAMPLING_RATE // sampling_rate]


@lru_cache(maxsize=32)
def _resampler(sampling_rate: int, device: torch.device) -> Resample:
    """Make the kernel, once for each rate; 32 of the largest take half a gigabyte."""
    return Resample(
        sampling_rate,
        SAMPLING_RATE,
        resampling_method="sinc_interp_kaiser",
        lowpass_filter_width=_WIDTH,
        rolloff=_ROLLOFF,
        beta=_BETA,
    ).to(device)


def _kernel_size(sampling_rate: int) -> int:
    """Coefficients of torchaudio's kernel: one filter for each phase of the output."""
    common = math.gcd(sampling_rate, SAMPLING_RATE)
    old, new = sampling_rate // common, SAMPLING_RATE // common
    half = math.ceil(_WIDTH * old / (min(old, new) * _ROLLOFF))
    return new * (2 * half + old)


def speech_bounds(waveforms: Tensor, lengths: Tensor) -> Tensor:
    """Find where speech begins and ends, as `resample_trim.speech_bounds` does, without synchronising with the device.

    Args:
        waveforms: float32 of shape (clip, time) at 16 kHz, zero past the end of each clip.
        lengths: int64, samples in each clip, of shape (clip,), on the same device.

    Returns:
        First sample of speech and the one after the last, int64 of shape (clip, 2); (0, 0) for a silent clip.
    """
    beyond = torch.arange(1 + waveforms.shape[1] // HOP, device=waveforms.device) > lengths[:, None] // HOP
    energy = _frame_sums(waveforms.square()).masked_fill(beyond, 0)
    offset = waveforms.sum(dim=1, keepdim=True) / lengths[:, None]
    shifted = FRAME * offset.square() > OFFSET * QUIET * _loudness(energy, lengths)
    without = torch.minimum(energy, _frame_energy_without_offset(waveforms, lengths, offset, beyond))
    energy = torch.where(shifted, without, energy)
    loudness = _loudness(energy, lengths)
    loud = (energy > QUIET * loudness).int()
    first = loud.argmax(dim=1)
    last = energy.shape[1] - 1 - loud.flip(1).argmax(dim=1)
    begin = (first * HOP - MARGIN).clamp(min=0)
    end = torch.minimum((last + 1) * HOP + MARGIN, lengths)
    return torch.stack([begin, end], dim=1).masked_fill(loudness < SILENCE * FRAME, 0)


def _loudness(energy: Tensor, lengths: Tensor) -> Tensor:
    """Energy of the loudest frame of each clip that is not a click, of shape (clip, 1)."""
    loudest = energy.amax(dim=1, keepdim=True)
    if energy.shape[1] < HELD:
        return loudest
    held = energy.unfold(1, HELD, 1).amin(dim=2).amax(dim=1, keepdim=True)
    click = (loudest > CLICK * held) & (lengths[:, None] // HOP + 1 >= HELD)
    return torch.where(click, held, loudest)


def _frame_energy_without_offset(waveforms: Tensor, lengths: Tensor, offset: Tensor, beyond: Tensor) -> Tensor:
    """Energy of each frame without the clip's offset (clip, 1), as in `resample_trim`; 0 in frames `beyond` the end."""
    outside = torch.arange(waveforms.shape[1], device=waveforms.device) >= lengths[:, None]
    centred = (waveforms - offset).masked_fill(outside, 0)
    energy = _frame_sums(centred.square()).masked_fill(beyond, 0)
    begin = torch.arange(energy.shape[1], device=waveforms.device) * HOP - FRAME // 2
    counts = torch.minimum(begin + FRAME, lengths[:, None]) - begin.clamp(min=0)
    of_mean = _frame_sums(centred).square() / counts.clamp(min=1)
    loud_mean = of_mean > QUIET * _loudness(energy, lengths)
    return torch.where(loud_mean, (energy - of_mean).clamp(min=0), energy)


def _frame_sums(values: Tensor) -> Tensor:
    """Sum of the values in each frame, (clip, 1 + time // HOP), from the sums over hops: a frame is four hops."""
    clips, time = values.shape
    whole = time // HOP
    # Two hops of zeros before and one after the waveform, whose last hop may be incomplete.
    hops = torch.zeros(clips, whole + 4, device=values.device)
    hops[:, 2 : 2 + whole] = values[:, : whole * HOP].view(clips, whole, HOP).sum(dim=2)
    hops[:, 2 + whole] = values[:, whole * HOP :].sum(dim=1)
    return hops.unfold(1, FRAME // HOP, 1).sum(dim=2)
