"""How much decoded audio is taken: bounds on rate, channels and samples, held by every decoder while it runs."""

from __future__ import annotations

from service.errors import AudioTooLong, NotDecodable

MIN_RATE = 1_000
"""Lowest sampling rate in Hz; below it there is no speech to hear."""

MAX_RATE = 768_000
"""Highest sampling rate in Hz that converters exist for."""

MAX_CHANNELS = 32
"""Most channels; some formats allow 65,535."""

MAX_VALUES = 1 << 26
"""Most samples over all channels (256 MiB as float32): 300 s of stereo at 96 kHz, 70 minutes of mono at 16 kHz."""


def frame_budget(sampling_rate: int, channels: int, max_duration: float) -> int:
    """Say how many samples per channel may be decoded.

    Args:
        sampling_rate: in Hz.
        channels: number of channels.
        max_duration: the longest audio taken, in seconds.

    Raises:
        NotDecodable: the rate or the number of channels is out of bounds.
    """
    if not MIN_RATE <= sampling_rate <= MAX_RATE:
        raise NotDecodable(
            f"The audio has a sampling rate of {sampling_rate} Hz; taken are {MIN_RATE} to {MAX_RATE} Hz."
        )
    if not 1 <= channels <= MAX_CHANNELS:
        raise NotDecodable(f"The audio has {channels} channels; taken are 1 to {MAX_CHANNELS}.")
    return min(int(max_duration * sampling_rate), MAX_VALUES // channels)


def too_long(sampling_rate: int, channels: int, max_duration: float) -> AudioTooLong:
    """Word the error for audio that goes past `frame_budget`."""
    seconds = MAX_VALUES / (sampling_rate * channels)
    if seconds < max_duration:
        return AudioTooLong(
            f"Of audio with {channels} channels at {sampling_rate} Hz at most {seconds:.3g} s are taken; "
            "send fewer channels, a lower rate, or a shorter piece."
        )
    return AudioTooLong(f"The audio is longer than {max_duration:g} s.")
