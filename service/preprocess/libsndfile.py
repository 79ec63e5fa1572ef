"""Decode with libsndfile, in this process: by far the fastest for the WAV family, AIFF, AU, CAF, FLAC and Vorbis.

MP3 is left to FFmpeg, because libsndfile's decoder prints to standard error on damaged files, and so is Opus, which
libsndfile takes twice as long for.
"""

from __future__ import annotations

import soundfile

from service.errors import AudioEmpty, AudioTruncated
from service.preprocess.byte_source import ByteSource
from service.preprocess.declared_length import Kind
from service.preprocess.decoding_limits import Limits, block_frames
from service.results import Floats

KINDS: frozenset[Kind] = frozenset({"wav", "w64", "aiff", "au", "caf", "flac", "ogg"})
"""What is offered to libsndfile. It knows more formats, some by the faintest of signs."""

_UNKNOWN_LENGTH = 1 << 60
"""libsndfile's number of frames for a file that does not tell."""

_TOLERANCE = 0.05
"""Seconds that may be missing before a file counts as cut off."""


class _ForwardFile(soundfile.SoundFile):  # type: ignore[misc] # soundfile has no types that mypy follows
    """A file that is read from its beginning to its end.

    After each read soundfile seeks to where it is already, if the file can seek. Between blocks of ten seconds that
    costs next to nothing, but in a damaged file a seek may fail or land elsewhere, and then blocks would not be what
    the whole file is.
    """

    def seekable(self) -> bool:
        return False


class LibsndfileSound:
    """A file that libsndfile has opened; see `service.preprocess.open.Sound`."""

    def __init__(self, file: _ForwardFile) -> None:
        self._file = file
        self.sampling_rate: int = file.samplerate
        self.channels: int = file.channels
        self._declared: int = file.frames
        self._left = self._declared

    def read(self) -> Floats | None:
        """Decode the next block; None after the last.

        Raises:
            AudioEmpty: there are no samples at all.
            AudioTruncated: the audio is damaged or ends early.
        """
        return self._take(block_frames(self.sampling_rate, self.channels))

    def read_all(self) -> Floats:
        """Decode everything at once; raises as `read` does."""
        # The array costs memory only where libsndfile writes samples, whatever the header claims.
        samples = self._take(self._declared)
        if samples is None:
            raise AudioEmpty("The file holds no samples.")
        return samples

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def _take(self, most: int) -> Floats | None:
        wanted = min(most, self._left)
        if not wanted:
            return None
        try:
            samples: Floats = self._file.read(wanted, dtype="float32", always_2d=True)
        except soundfile.SoundFileError as error:
            raise AudioTruncated("The audio is damaged or ends early.") from error
        self._left -= len(samples)
        if len(samples) < wanted:
            self._end_early()
        return samples.T if len(samples) else None

    def _end_early(self) -> None:
        read = self._declared - self._left
        if self._left > _TOLERANCE * self.sampling_rate:
            raise AudioTruncated(
                f"The header declares {self._declared / self.sampling_rate:.2f} s of audio, "
                f"but it ends after {read / self.sampling_rate:.2f} s."
            )
        if not read:
            raise AudioEmpty("The file holds no samples.")
        self._left = 0


def open_sound(source: ByteSource, limits: Limits) -> LibsndfileSound | None:
    """Open a file.

    Args:
        source: the file, of one of `KINDS`.
        limits: what is taken of it.

    Returns:
        None where libsndfile cannot say what is in the file, and somebody else should try.

    Raises:
        AudioTooLong: the header declares more than is taken; such a file would be too long or cut off.
        NotDecodable: the sampling rate or the number of channels is out of bounds.
    """
    source.seek(0)
    try:
        file = _ForwardFile(source)
    except (soundfile.LibsndfileError, TypeError):
        return None
    try:
        budget = limits.frames(file.samplerate, file.channels)
        known = 0 < file.frames < _UNKNOWN_LENGTH
        if known and file.frames > budget:
            raise limits.too_long(file.samplerate, file.channels)
    except BaseException:
        file.close()
        raise
    if not known:
        file.close()
        return None
    return LibsndfileSound(file)
