"""Decode a file with libsndfile in this process, or with FFmpeg in a child process; see also `preprocess.reader`.

The format is detected from the content alone; the client's file name, extension and content type are ignored.
"""

from __future__ import annotations

from contextlib import closing
from typing import Protocol

from service.errors import AudioEmpty, AudioTruncated, NotDecodable
from service.preprocess import libsndfile
from service.preprocess.byte_source import ByteSource, Data
from service.preprocess.declared_length import Header, read_header
from service.preprocess.decoding_limits import DecodingLimits
from service.preprocess.ffmpeg import sandbox
from service.preprocess.links import is_plain
from service.results import Floats, Waveform

_ARCHIVES = {b"\x1f\x8b\x08": "gzip", b"PK\x03\x04": "ZIP"}
"""The first bytes of compressed files, which are refused with the name of their format."""


class AudioFile(Protocol):
    """An opened file, decoded once from beginning to end: either block by block or everything at once.

    Some formats declare no length (ADTS, AMR, GSM, MPEG-TS, MP3 without a Xing tag, anything written to a pipe). Such a
    file that was cut off cannot be told from a complete one.

    Attributes:
        sampling_rate: in Hz.
        channels: number of channels.
        ended_early: whether there were fewer samples than the file declares; known after the last block.
    """

    sampling_rate: int
    channels: int
    ended_early: bool

    def read(self) -> Floats | None:
        """Decode the next block: float32 (channel, time), up to `block_frames` long; None after the last.

        Integers are scaled to [-1, 1). The array may be a transposed view.

        Raises:
            NotDecodable: the file turns out not to be audio, or it breaks the decoder.
            AudioEmpty: the file contains no samples.
            AudioTooLong: the audio exceeds the limits.
            AudioTruncated: the audio is damaged.
            DecoderUnavailable: the decoder was killed or has stopped, twice.
        """

    def read_all(self) -> Floats:
        """Decode everything at once, instead of block by block; raises as `read` does."""

    def close(self) -> None:
        """Release the decoder. May be called more than once."""


def open_audio_file(source: ByteSource, limits: DecodingLimits) -> tuple[AudioFile, Header]:
    """Detect the format of a file and open it with its decoder; also returns what the file says about its length.

    Args:
        source: the file.
        limits: how much audio may be decoded.

    Raises:
        NotDecodable: not audio in a supported format, no audio stream, or rate or channels out of bounds.
        AudioEmpty: no bytes or no samples.
        AudioTooLong: the audio is known to exceed the limits.
        AudioTruncated: the file ends before its declared end, and nothing that is there can be decoded.
        QueueFull: too many files are being decoded block by block.
        DecoderUnavailable: the decoder was killed or has stopped, twice.
        ServiceError: the upload cannot be read back or no decoder can be started; not the client's fault.
    """
    source.check()
    if source.size == 0:
        raise AudioEmpty("The file has no bytes.")
    head = source.at(0, 4)
    for signature, archive in _ARCHIVES.items():
        if head.startswith(signature):
            raise NotDecodable(f"The file is compressed with {archive}. Send the audio file in it.")
    header = read_header(source)
    source = header.joined or source
    try:
        file: AudioFile | None = None
        chained = header.kind in ("ogg", "flac") and not is_plain(source)
        if header.kind in libsndfile.KINDS and not chained:
            file = libsndfile.try_open(source, limits)
        return file or sandbox.FFmpegFile(source, limits), header
    except (NotDecodable, AudioEmpty) as error:
        if header.index_missing:
            raise AudioTruncated(
                "The file has no index (the box moov), which recorders write last; without it no audio can be found."
            ) from error
        if header.truncated:
            raise AudioTruncated(
                f"The file ends before its declared end, and nothing that is there can be decoded. {error.detail}"
            ) from error
        raise


def decode(data: Data, *, max_duration: float) -> Waveform:
    """Decode a whole file into memory; every limit is enforced while decoding.

    Args:
        data: the file's bytes, or a seekable binary file, which stays open.
        max_duration: the longest audio accepted, in seconds.

    Returns:
        At least one float32 sample, of shape (channel, time) at the file's own rate, integers scaled to [-1, 1). The
        array may be a transposed view.

    Raises:
        NotDecodable: not audio in a supported format, no audio stream, or rate or channels out of bounds.
        AudioEmpty: no bytes or no samples.
        AudioTooLong: longer than `max_duration`, or more samples over all channels than fit into memory.
        AudioTruncated: the audio is damaged, or the file ends early and nothing that is there can be decoded.
        DecoderUnavailable: the decoder was killed or has stopped, twice.
        ServiceError: the upload cannot be read back or no decoder can be started; not the client's fault.
    """
    source = ByteSource(data)
    try:
        file, header = open_audio_file(source, DecodingLimits(max_duration, whole=True))
        with closing(file):
            samples = file.read_all()
        truncated = header.truncated or file.ended_early
        return Waveform(samples, file.sampling_rate, truncated=truncated, unread_bytes=header.unread_bytes)
    finally:
        # If the upload itself could not be read, that is the error, whatever the decoder made of it.
        source.check()
