"""Decode with libsndfile, in this process: by far the fastest for the WAV family, AIFF, AU, CAF, FLAC and Vorbis.

MP3 is left to FFmpeg because libsndfile's decoder prints to standard error on damaged files, and Opus because
libsndfile takes twice as long for it.
"""

from __future__ import annotations

from contextlib import ExitStack

import soundfile

from service.errors import AudioEmpty, AudioTruncated
from service.preprocess.byte_source import ByteSource
from service.preprocess.declared_length import Kind
from service.preprocess.decoding_limits import DecodingLimits, block_frames
from service.results import Floats

KINDS: frozenset[Kind] = frozenset({"wav", "w64", "aiff", "au", "caf", "flac", "ogg"})
"""Formats that libsndfile is tried for. It knows more, some of which it detects by very weak signatures."""

_UNKNOWN_LENGTH = 1 << 60
"""The number of frames that libsndfile reports from here on means that the file declares no length."""

_TOLERANCE = 0.05
"""Seconds that may be missing before a file counts as truncated."""


class _SequentialFile(soundfile.SoundFile):  # type: ignore[misc] # soundfile has no types that mypy follows
    """A file that is read from beginning to end without seeking.

    If the file is seekable, soundfile seeks to the current position after each read. In a damaged file such a seek may
    fail or land elsewhere, and then the blocks would differ from the whole file.
    """

    def seekable(self) -> bool:
        return False


class LibsndfileFile:
    """A file opened with libsndfile; see `service.preprocess.decode.AudioFile`.

    Args:
        file: at its beginning, with a known length of at least one frame.
    """

    def __init__(self, file: _SequentialFile) -> None:
        self._file = file
        self.sampling_rate: int = file.samplerate
        self.channels: int = file.channels
        self._declared: int = file.frames
        self._left = self._declared

    def read(self) -> Floats | None:
        """Decode the next block; None after the last. For the errors see `service.preprocess.decode.AudioFile`."""
        if not self._left:
            return None
        samples = self._read(block_frames(self.sampling_rate, self.channels))
        return samples if samples.size else None

    def read_all(self) -> Floats:
        """Decode everything at once; raises as `read` does."""
        # The array occupies memory only where libsndfile writes samples, whatever length the header declares.
        return self._read(self._declared)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _read(self, frames: int) -> Floats:
        wanted = min(frames, self._left)
        try:
            samples: Floats = self._file.read(wanted, dtype="float32", always_2d=True)
        except soundfile.SoundFileError as error:
            raise AudioTruncated("The audio is damaged or ends early.") from error
        self._left -= len(samples)
        if len(samples) < wanted:
            self._check_early_end()
        return samples.T

    def _check_early_end(self) -> None:
        """Accept an end before the declared one where hardly anything is missing."""
        decoded = self._declared - self._left
        if self._left > _TOLERANCE * self.sampling_rate:
            raise AudioTruncated(
                f"The header declares {self._declared / self.sampling_rate:.2f} s of audio, "
                f"but it ends after {decoded / self.sampling_rate:.2f} s."
            )
        if not decoded:
            raise AudioEmpty("The file contains no samples.")
        self._left = 0


def try_open(source: ByteSource, limits: DecodingLimits) -> LibsndfileFile | None:
    """Open a file, or return None where libsndfile cannot and FFmpeg should be tried.

    Args:
        source: the file, of one of `KINDS`.
        limits: how much audio may be decoded.

    Raises:
        AudioTooLong: the header declares more than the limits allow; the file would be too long or truncated.
        NotDecodable: the sampling rate or the number of channels is out of bounds.
    """
    source.seek(0)
    try:
        file = _SequentialFile(source)
    except (soundfile.LibsndfileError, TypeError):
        return None
    with ExitStack() as stack:
        stack.callback(file.close)
        budget = limits.frames(file.samplerate, file.channels)
        if not 0 < file.frames < _UNKNOWN_LENGTH:
            return None
        if file.frames > budget:
            raise limits.too_long(file.samplerate, file.channels)
        stack.pop_all()
    return LibsndfileFile(file)
