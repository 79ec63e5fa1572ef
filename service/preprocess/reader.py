"""Decode an upload block by block, in memory that does not depend on its length."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Lock
from typing import Self

from service.errors import ServiceError
from service.preprocess.byte_source import ByteSource, Data
from service.preprocess.declared_length import Header
from service.preprocess.decode import AudioFile, open_audio_file
from service.preprocess.decoding_limits import DecodingLimits
from service.results import Floats


class AudioReader:
    """A file that is decoded block by block. Close it or use it in a `with` statement: it may hold a child process.

    Attributes:
        sampling_rate: in Hz.
        channels: number of channels.
        unread_bytes: behind the audio, which are not decoded.
    """

    def __init__(self, source: ByteSource, file: AudioFile, header: Header) -> None:
        self.sampling_rate = file.sampling_rate
        self.channels = file.channels
        self.unread_bytes = header.unread_bytes
        self._header = header
        self._source = source
        self._file = file
        self._closed = False
        self._lock = Lock()

    @property
    def truncated(self) -> bool:
        """Whether the file ends before its declared end; of some formats known only after the last block."""
        return self._header.truncated or self._file.ended_early

    def blocks(self) -> Iterator[Floats]:
        """Decode block by block, at most about one block ahead of the caller.

        Blocks may be requested from different threads, one at a time. The reader closes itself at the end, after an
        error, and when this iterator is closed.

        Yields:
            float32 samples of shape (channel, time) at the file's own rate, at least one and at most `BLOCK_SECONDS` of
            them, integers scaled to [-1, 1). Concatenated they equal what `service.preprocess.decode.decode` returns.
            An array may be a transposed view.

        Raises:
            AudioError: as `service.preprocess.decode.AudioFile.read`.
            DecoderUnavailable: likewise.
            ServiceError: the upload cannot be read back; not the client's fault.
            ValueError: the reader is closed.
        """
        try:
            while (block := self._next()) is not None:
                yield block
        finally:
            self.close()

    def close(self) -> None:
        """Release the decoder, after the block that is being decoded, if any. May be called more than once."""
        with self._lock:
            self._closed = True
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _next(self) -> Floats | None:
        with self._lock:
            if self._closed:
                raise ValueError("The reader is closed.")
            try:
                return self._file.read()
            finally:
                self._source.check()


def open_reader(data: Data, *, max_duration: float) -> AudioReader:
    """Open a file for decoding block by block, in any format that `service.preprocess.decode.decode` accepts.

    Args:
        data: the file's bytes, or a seekable binary file, which must stay open and must not be moved while it is read.
        max_duration: the longest audio accepted, in seconds.

    Raises:
        ServiceError: as `service.preprocess.decode.open_audio_file`.
    """
    source = ByteSource(data)
    try:
        file, header = open_audio_file(source, DecodingLimits(max_duration, whole=False))
    except ServiceError:
        source.check()
        raise
    return AudioReader(source, file, header)
