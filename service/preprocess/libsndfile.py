"""Decode with libsndfile, in this process: by far the fastest for the WAV family, AIFF, AU, CAF, FLAC and Vorbis.

MP3 is left to FFmpeg, because libsndfile's decoder prints to standard error on damaged files, and so is Opus, which
libsndfile takes twice as long for.
"""

from __future__ import annotations

import soundfile

from service.errors import AudioTruncated
from service.preprocess.container import Kind
from service.preprocess.limits import frame_budget, too_long
from service.preprocess.source import ByteSource
from service.results import Waveform

KINDS: frozenset[Kind] = frozenset({"wav", "w64", "aiff", "au", "caf", "flac", "ogg"})
"""What is offered to libsndfile. It knows more formats, some by the faintest of signs."""

_UNKNOWN_LENGTH = 1 << 60
"""libsndfile's number of frames for a file that does not tell."""

_TOLERANCE = 0.05
"""Seconds that may be missing before a file counts as cut off."""


def decode(source: ByteSource, max_duration: float) -> Waveform | None:
    """Decode a whole file.

    Args:
        source: the file, of one of `KINDS`.
        max_duration: the longest audio taken, in seconds.

    Returns:
        The waveform; its samples may be a transposed view. None where libsndfile cannot say what is in the file, and
        somebody else should try.

    Raises:
        AudioTooLong: more seconds, or more samples over all channels, than are taken.
        AudioTruncated: the audio is damaged or ends early.
        NotDecodable: the sampling rate or the number of channels is out of bounds.
    """
    source.seek(0)
    try:
        file = soundfile.SoundFile(source)
    except (soundfile.LibsndfileError, TypeError):
        return None
    with file:
        declared, rate, channels = file.frames, file.samplerate, file.channels
        budget = frame_budget(rate, channels, max_duration)
        if declared == 0 or declared >= _UNKNOWN_LENGTH:
            return None
        try:
            # One more than allowed tells. Asking for blocks would be slower and worse: soundfile seeks after each
            # read. The array costs memory only where libsndfile writes samples, whatever the header claims.
            samples = file.read(min(declared, budget + 1), dtype="float32", always_2d=True)
        except soundfile.SoundFileError as error:
            raise AudioTruncated("The audio is damaged or ends early.") from error
    if len(samples) > budget:
        raise too_long(rate, channels, max_duration)
    if len(samples) < declared - _TOLERANCE * rate:
        raise AudioTruncated(
            f"The header declares {declared / rate:.2f} s of audio, but it ends after {len(samples) / rate:.2f} s."
        )
    return Waveform(samples.T, rate)
