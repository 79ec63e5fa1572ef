"""Decode with libsndfile, in this process: by far the fastest for the WAV family, AIFF, AU, CAF, FLAC and Vorbis.

MP3 is left to FFmpeg because libsndfile's decoder prints to standard error on damaged files, and Opus because
libsndfile takes twice as long for it.
"""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np
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
"""Seconds that may be missing before a file counts as truncated or damaged."""


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
        file: at its beginning.
        source: its bytes.
        frames: how many it has per channel at most, at least one.
    """

    def __init__(self, file: _SequentialFile, source: ByteSource, frames: int) -> None:
        self._file = file
        self._source = source
        self.sampling_rate: int = file.samplerate
        self.channels: int = file.channels
        self.ended_early = False
        self._frames = frames
        self._left = frames

    def read(self) -> Floats | None:
        """Decode the next block; None after the last. For the errors see `service.preprocess.decode.AudioFile`."""
        if not self._left:
            return None
        samples = self._read(block_frames(self.sampling_rate, self.channels))
        return samples if samples.size else None

    def read_all(self) -> Floats:
        """Decode everything at once; raises as `read` does."""
        # The array occupies memory only where libsndfile writes samples, whatever length the header declares.
        return self._read(self._frames)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _read(self, frames: int) -> Floats:
        wanted = min(frames, self._left)
        begin = self._frames - self._left
        samples: Floats = np.empty((wanted, self.channels), np.float32)
        try:
            samples = self._file.read(out=samples)
        except soundfile.SoundFileError as error:
            # An error may also mean that the file ends within a frame; the frames before it have been decoded.
            if self._source.tell() < self._source.size:
                raise AudioTruncated("The audio is damaged.") from error
            samples = samples[: self._file.tell() - begin]
        self._left -= len(samples)
        if len(samples) < wanted:
            self._check_early_end()
        return samples.T

    def _check_early_end(self) -> None:
        """Accept an early end where the header may declare more than there is, or hardly anything is missing."""
        decoded = self._frames - self._left
        if not decoded:
            raise AudioEmpty("The file contains no samples.")
        if self._left > _TOLERANCE * self.sampling_rate:
            if self._file.format != "FLAC":  # all others declare the length that is there
                seconds = f"{decoded / self.sampling_rate:.2f} of {self._frames / self.sampling_rate:.2f} s"
                raise AudioTruncated(f"The audio is damaged: only {seconds} can be decoded.")
            self.ended_early = True
        self._left = 0


def try_open(source: ByteSource, limits: DecodingLimits) -> LibsndfileFile | None:
    """Open a file, or return None where libsndfile cannot and FFmpeg should be tried.

    Args:
        source: the file, of one of `KINDS`.
        limits: how much audio may be decoded.

    Raises:
        AudioTooLong: there is more than the limits allow.
        NotDecodable: the sampling rate or the number of channels is out of bounds.
    """
    file = _open(source)
    if file is None:
        return None
    with ExitStack() as stack:
        stack.callback(file.close)
        budget = limits.frames(file.samplerate, file.channels)
        frames: int = file.frames
        if not 0 < frames < _UNKNOWN_LENGTH:
            return None
        if frames > budget and _has_frame(file, budget):
            raise limits.too_long(file.samplerate, file.channels)
        if frames <= budget:
            stack.pop_all()
            return LibsndfileFile(file, source, frames)
    # The header declares more than there is, and more than the limits allow. The search has moved the decoder.
    file = _open(source)
    return None if file is None else LibsndfileFile(file, source, budget)


def _open(source: ByteSource) -> _SequentialFile | None:
    source.seek(0)
    try:
        return _SequentialFile(source)
    except (soundfile.LibsndfileError, TypeError):
        return None


def _has_frame(file: _SequentialFile, frame: int) -> bool:
    """Whether there is a sample with this number, whatever the header declares."""
    try:
        file.seek(frame)
        return bool(len(file.read(1)))
    except soundfile.SoundFileError:
        return False
