"""From a decoded file to what a backend takes: cut, choose channels, refuse what cannot be scored."""

from __future__ import annotations

from typing import Literal

import numpy as np

from service.errors import AudioEmpty, AudioNotFinite, AudioTooShort, FieldError, InvalidOptions
from service.results import MIN_SAMPLES, SAMPLING_RATE, Clip, Floats, Waveform

ChannelChoice = Literal["mix", "split"] | int
"""`mix` for the mean of all channels, `split` for each by itself, or one channel's index."""

_LARGEST = 1e12
"""Largest magnitude of a sample. Full scale is 1, and files of unscaled 32-bit integers reach 2e9; the energy of much
larger values does not fit float32."""


def make_clips(
    waveform: Waveform,
    *,
    channels: ChannelChoice,
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
    check_options(channels, start, end, of_channels=waveform.channels, duration=waveform.duration)
    rate = waveform.sampling_rate
    first = 0 if start is None else round(start * rate)
    last = None if end is None or end >= waveform.duration else round(end * rate)
    samples = waveform.samples[:, first:last]
    check_length(samples.shape[1], rate)
    return [Clip(_own(channel), rate, trim, frame_embeddings) for channel in choose(samples, channels)]


def check_options(
    channels: ChannelChoice, start: float | None, end: float | None, *, of_channels: int, duration: float | None
) -> None:
    """Raise InvalidOptions, naming every option that does not fit audio of so many channels and seconds.

    Without a `duration`, what depends on it is not checked.
    """
    errors = []
    if isinstance(channels, int) and not 0 <= channels < of_channels:
        message = f"the audio has {of_channels} channel(s), counted from 0"
        errors.append(FieldError("channels", message, "channel_out_of_range"))
    if start is not None and not 0 <= start < (float("inf") if duration is None else duration):
        lasts = "" if duration is None else f", which lasts {duration:.3f} s"
        errors.append(FieldError("start", f"must lie within the audio{lasts}", "start_out_of_range"))
    if end is not None and not end > max(0.0, start or 0.0):
        errors.append(FieldError("end", "must come after the start", "end_before_start"))
    if errors:
        raise InvalidOptions("Options do not fit the audio.", errors)


def check_length(length: int, sampling_rate: int) -> None:
    """Raise AudioTooShort where so many samples make no frame of the model."""
    if length * SAMPLING_RATE < MIN_SAMPLES * sampling_rate:
        needed = MIN_SAMPLES / SAMPLING_RATE
        found = length / sampling_rate
        raise AudioTooShort(f"The audio to score is {found:.4f} s long; at least {needed:g} s are needed.")


def choose(samples: Floats, channels: ChannelChoice) -> list[Floats]:
    """Mix or select channels.

    Args:
        samples: float32 of shape (channel, time), of which there are some.
        channels: as in `make_clips`; one that exists.

    Returns:
        Arrays of shape (time,), which may be views of `samples`.

    Raises:
        AudioNotFinite: what was chosen is NaN, infinite or absurdly large.
    """
    if channels == "mix":
        chosen = [_mean(samples)]
    elif channels == "split":
        chosen = list(samples)
    else:
        chosen = [samples[channels]]
    if not all(channel.min() >= -_LARGEST and channel.max() <= _LARGEST for channel in chosen):
        raise AudioNotFinite("Samples are NaN, infinite or beyond any scale.")
    return chosen


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
