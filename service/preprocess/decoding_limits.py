"""Limits on decoded audio: sampling rate, channels and number of samples. Every decoder enforces them while it runs."""

from __future__ import annotations

from dataclasses import dataclass

from service.errors import AudioTooLong, NotDecodable

MIN_RATE = 1_000
"""Lowest sampling rate in Hz; below it speech is not intelligible."""

MAX_RATE = 768_000
"""Highest sampling rate in Hz that audio hardware supports."""

MAX_CHANNELS = 32
"""Most channels; some formats allow 65,535."""

MAX_VALUES = 1 << 26
"""Most samples over all channels (256 MiB as float32) of a file in memory as a whole: 70 minutes of mono at 16 kHz."""

BLOCK_SECONDS = 10
"""Longest block of a file that is decoded block by block."""

_BLOCK_VALUES = 1 << 20
"""Most samples over all channels in one block (4 MiB as float32): 10 s of stereo at 48 kHz."""


@dataclass(frozen=True, slots=True)
class DecodingLimits:
    """How much audio may be decoded from one file.

    Attributes:
        max_duration: the longest audio accepted, in seconds.
        whole: whether all samples will be in memory at the same time, so that their number is limited too.
    """

    max_duration: float
    whole: bool

    def frames(self, sampling_rate: int, channels: int) -> int:
        """Return how many samples per channel may be decoded.

        Args:
            sampling_rate: in Hz.
            channels: number of channels.

        Raises:
            NotDecodable: the rate or the number of channels is out of bounds.
        """
        if not MIN_RATE <= sampling_rate <= MAX_RATE:
            raise NotDecodable(
                f"The audio has a sampling rate of {sampling_rate} Hz; supported are {MIN_RATE} to {MAX_RATE} Hz."
            )
        if not 1 <= channels <= MAX_CHANNELS:
            raise NotDecodable(f"The audio has {channels} channels; supported are 1 to {MAX_CHANNELS}.")
        frames = int(self.max_duration * sampling_rate)
        return min(frames, MAX_VALUES // channels) if self.whole else frames

    def too_long(self, sampling_rate: int, channels: int) -> AudioTooLong:
        """Return the error for audio with more than `frames` samples per channel."""
        seconds = MAX_VALUES / (sampling_rate * channels)
        if self.whole and seconds < self.max_duration:
            return AudioTooLong(
                f"Audio with {channels} channels at {sampling_rate} Hz may last at most {seconds:.3g} s; "
                "send fewer channels, a lower sampling rate, or a shorter file."
            )
        return AudioTooLong(f"The audio is longer than {self.max_duration:g} s.")


def block_frames(sampling_rate: int, channels: int) -> int:
    """Return how many samples per channel a full block has."""
    return min(BLOCK_SECONDS * sampling_rate, _BLOCK_VALUES // channels)
