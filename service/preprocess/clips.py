"""From a decoded file to what a backend takes: cut, choose channels, refuse what cannot be scored."""

from __future__ import annotations

from typing import Literal

import numpy as np

from service.errors import AudioEmpty, AudioNotFinite, AudioTooShort, FieldError, InvalidOptions
from service.results import MIN_SAMPLES, SAMPLING_RATE, Clip, Floats, Waveform

_LARGEST = 1e12
"""Largest magnitude of a sample. Full scale is 1, and files of unscaled 32-bit integers reach 2e9; the energy of much
larger values does not fit float32."""


def make_clips(
    waveform: Waveform,
    *,
    channels: Literal["mix", "split"] | int,
    start: float | None,
    end: float | None,
    trim: bool,
    frame_embeddings: bool,
) -> list[Clip]:
    """Cut a stretch out of a waveform and make a clip of the chosen channels.

    Args:
        waveform: float32 samples of shape (channel, time).
        channels: `mix` for the mean of all channels, `split` for a clip per channel, or one channel's index.
        start: seconds at which the clip begins; None for the beginning.
        end: seconds at which it ends; None for the end, and past the end means the end.
        trim: passed on to the backend.
        frame_embeddings: passed on to the backend.

    Returns:
        One clip, or one per channel for `split`: contiguous float32 samples of shape (time,) at the file's own rate.

    Raises:
        InvalidOptions: there is no such channel, or nothing lies between `start` and `end`.
        AudioEmpty: there are no samples.
        AudioTooShort: less than 25 ms.
        AudioNotFinite: samples are NaN, infinite or absurdly large.
    """
    if not waveform.samples.size:
        raise AudioEmpty("The file holds no samples.")
    _check(waveform, channels, start, end)
    rate = waveform.sampling_rate
    first = 0 if start is None else round(start * rate)
    last = None if end is None or end >= waveform.duration else round(end * rate)
    samples = waveform.samples[:, first:last]
    length = samples.shape[1]
    if length * SAMPLING_RATE < MIN_SAMPLES * rate:
        needed = MIN_SAMPLES / SAMPLING_RATE
        raise AudioTooShort(f"The audio to score is {length / rate:.4f} s long; at least {needed:g} s are needed.")
    if channels == "mix":
        chosen = [_mean(samples)]
    elif channels == "split":
        chosen = list(samples)
    else:
        chosen = [samples[channels]]
    if not all(channel.min() >= -_LARGEST and channel.max() <= _LARGEST for channel in chosen):
        raise AudioNotFinite("Samples are NaN, infinite or beyond any scale.")
    return [Clip(_own(channel), rate, trim, frame_embeddings) for channel in chosen]


def _check(waveform: Waveform, channels: Literal["mix", "split"] | int, start: float | None, end: float | None) -> None:
    """Raise InvalidOptions, naming every option that does not fit the audio."""
    errors = []
    if isinstance(channels, int) and not 0 <= channels < waveform.channels:
        message = f"the audio has {waveform.channels} channel(s), counted from 0"
        errors.append(FieldError("channels", message, "channel_out_of_range"))
    if start is not None and not 0 <= start < waveform.duration:
        message = f"must lie within the audio, which lasts {waveform.duration:.3f} s"
        errors.append(FieldError("start", message, "start_out_of_range"))
    if end is not None and not end > max(0.0, start or 0.0):
        errors.append(FieldError("end", "must come after the start", "end_before_start"))
    if errors:
        raise InvalidOptions("Options do not fit the audio.", errors)


def _mean(samples: Floats) -> Floats:
    """Mean over channels. Channel by channel, which for interleaved samples is much faster than `numpy.mean`."""
    total: Floats = samples[0]
    with np.errstate(over="ignore", invalid="ignore"):  # the caller looks for what is not finite
        for channel in samples[1:]:
            total = total + channel
        return total if len(samples) == 1 else total / np.float32(len(samples))


def _own(channel: Floats) -> Floats:
    """Contiguous samples that keep nothing else in memory: a clip may wait in a queue that counts its seconds only."""
    whole = channel.base is None or getattr(channel.base, "nbytes", None) == channel.nbytes
    return channel if whole and channel.flags.c_contiguous else channel.copy()
