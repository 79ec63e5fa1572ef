"""Open an upload with the library that decodes it. What follows is the same for both: blocks, or everything at once.

libsndfile reads its formats in this process, FFmpeg reads all others in a process of its own. The format is told by the
content alone; no name, extension or content type of the client is used.
"""

from __future__ import annotations

from typing import Protocol

from service.errors import AudioEmpty, AudioTruncated
from service.preprocess import libsndfile
from service.preprocess.byte_source import ByteSource
from service.preprocess.declared_length import read_header
from service.preprocess.decoding_limits import Limits
from service.preprocess.ffmpeg import sandbox
from service.results import Floats


class Sound(Protocol):
    """An opened file, which is read once from its beginning to its end.

    Formats that declare no length (ADTS, AMR, GSM, MPEG-TS, MP3 without a Xing tag, what was written into a pipe) end
    where they end.
    """

    sampling_rate: int
    channels: int

    def read(self) -> Floats | None:
        """Decode the next block: float32 (channel, time), up to `limits.block_frames` long; None after the last.

        Integers are scaled to [-1, 1). The array may be a transposed view.

        Raises:
            NotDecodable: it turns out that this is no audio after all, or the file breaks the decoder.
            AudioEmpty: there are no samples at all.
            AudioTooLong: more audio than is taken.
            AudioTruncated: the audio is damaged, or ends before the length that its header declares.
        """

    def read_all(self) -> Floats:
        """Decode everything, instead of block by block; raises as `read` does."""

    def close(self) -> None:
        """Let go of what reads the file, wherever it is. May be called again."""


def open_sound(source: ByteSource, limits: Limits) -> Sound:
    """Find out what a file is, and begin to decode it.

    Raises:
        NotDecodable: not audio in a supported format, no audio stream, or rate and channels out of bounds.
        AudioEmpty: no bytes or no samples.
        AudioTooLong: the audio is known to be longer than is taken.
        AudioTruncated: the file ends before the end that its header declares.
        QueueFull: too many long files are being read.
        ServiceError: no decoder can be started; not the client's fault.
    """
    source.check()
    if source.size == 0:
        raise AudioEmpty("There are no bytes.")
    header = read_header(source)
    if header.truncated:
        raise AudioTruncated("The file ends before the end that its own header declares.")
    if header.kind in libsndfile.KINDS and (sound := libsndfile.open_sound(source, limits)):
        return sound
    return sandbox.FFmpegSound(source, limits)
