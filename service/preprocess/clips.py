"""Make clips for the backend from decoded audio: cut, select or mix channels, and reject what cannot be scored."""

from __future__ import annotations

from typing import Literal

import numpy as np

from service.errors import AudioNotFinite, AudioTooShort, FieldError, InvalidOptions
from service.preprocess.channel_mix import frame_energies, loudest_if_cancelled
from service.results import MIN_SAMPLES, SAMPLING_RATE, Clip, Floats, Waveform

ChannelChoice = Literal["mix", "split"] | int
"""`mix` for the mean of all channels, `split` for each channel separately, or the index of one channel."""

_LARGEST = 1e12
"""Largest magnitude of a sample. Unscaled 32-bit integers reach 2e9; the energy of much more does not fit float32."""


def make_clips(
    waveform: Waveform,
    *,
    channels: ChannelChoice,
    start: float | None,
    end: float | None,
    trim: bool,
    frame_embeddings: bool,
) -> tuple[list[Clip], int | None]:
    """Cut a stretch out of a waveform and make a clip of each channel chosen.

    Args:
        waveform: float32 samples of shape (channel, time).
        channels: `mix` for the mean of all channels, or the loudest one if the mean cancels out; `split` for a clip per
            channel; or the index of one channel.
        start: seconds at which the clip begins, 0 or more; None for the beginning.
        end: seconds at which it ends, more than `start`; None for the end, and past the end means the end.
        trim: passed on to the backend.
        frame_embeddings: passed on to the backend.

    Returns:
        One clip, or one per channel for `split`: contiguous float32 samples of shape (time,) at the file's own rate.
        And the channel that was taken because the mean cancels out, otherwise None.

    Raises:
        InvalidOptions: there is no such channel, or the audio ends before `start`.
        AudioTooShort: less than 25 ms.
        AudioNotFinite: samples are NaN, infinite or beyond any plausible scale.
    """
    check_options(channels, start, of_channels=waveform.channels, duration=waveform.duration)
    rate = waveform.sampling_rate
    first = 0 if start is None else round(start * rate)
    last = None if end is None or end >= waveform.duration else round(end * rate)
    samples = waveform.samples[:, first:last]
    check_length(samples.shape[1], rate)
    chosen, taken = choose(samples, channels), None
    if channels == "mix" and len(samples) > 1:
        taken = loudest_if_cancelled(frame_energies(samples, rate), float(frame_energies(chosen[0][None], rate)[0]))
        if taken is not None:
            chosen = choose(samples, taken)
    return [Clip(_own(channel), rate, trim, frame_embeddings) for channel in chosen], taken


def check_options(channels: ChannelChoice, start: float | None, *, of_channels: int, duration: float) -> None:
    """Check the options that depend on the audio.

    Args:
        channels: as in `make_clips`.
        start: as in `make_clips`.
        of_channels: number of channels of the audio.
        duration: of the audio in seconds; infinite where it is not known yet.

    Raises:
        InvalidOptions: names every option that does not fit the audio.
    """
    errors = []
    if isinstance(channels, int) and channels >= of_channels:
        message = f"the audio has {of_channels} channel(s), counted from 0"
        errors.append(FieldError("channels", message, "channel_out_of_range"))
    if start is not None and start >= duration:
        message = f"must lie within the audio, which lasts {duration:.3f} s"
        errors.append(FieldError("start", message, "start_out_of_range"))
    if errors:
        raise InvalidOptions("Options do not fit the audio.", errors)


def check_length(length: int, sampling_rate: int) -> None:
    """Raise AudioTooShort if so many samples are less than one frame of the model."""
    if length * SAMPLING_RATE < MIN_SAMPLES * sampling_rate:
        needed = MIN_SAMPLES / SAMPLING_RATE
        found = length / sampling_rate
        raise AudioTooShort(f"The audio to score is {found:.4f} s long; at least {needed:g} s are needed.")


def choose(samples: Floats, channels: ChannelChoice) -> list[Floats]:
    """Mix or select channels.

    Args:
        samples: float32 of shape (channel, time), at least one sample.
        channels: as in `make_clips`; an index must exist.

    Returns:
        Arrays of shape (time,), which may be views of `samples`.

    Raises:
        AudioNotFinite: samples of the chosen channels are NaN, infinite or beyond any plausible scale.
    """
    if channels == "mix":
        chosen = [_mean(samples)]
    elif channels == "split":
        chosen = list(samples)
    else:
        chosen = [samples[channels]]
    if not all(channel.min() >= -_LARGEST and channel.max() <= _LARGEST for channel in chosen):
        raise AudioNotFinite(f"Samples are NaN, infinite or larger than {_LARGEST:g} times full scale.")
    return chosen


def _mean(samples: Floats) -> Floats:
    """Mean over channels. Adding channel by channel is much faster than `numpy.mean` for interleaved samples."""
    total: Floats = samples[0]
    with np.errstate(over="ignore", invalid="ignore"):  # the caller checks for values that are not finite
        for channel in samples[1:]:
            total = total + channel
        return total if len(samples) == 1 else total / np.float32(len(samples))


def _own(channel: Floats) -> Floats:
    """Return contiguous samples that keep no larger array alive: a queue that holds clips counts only their seconds."""
    whole = channel.base is None or getattr(channel.base, "nbytes", None) == channel.nbytes
    return channel if whole and channel.flags.c_contiguous else channel.copy()
