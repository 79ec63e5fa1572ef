"""Decode an upload piece by piece, in memory that does not depend on how long it is."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Lock
from types import TracebackType
from typing import Self

from service.errors import ServiceError
from service.preprocess.byte_source import ByteSource, Data
from service.preprocess.decoding_limits import Limits
from service.preprocess.open import Sound, open_sound
from service.results import Floats


class AudioReader:
    """A file that is being decoded. Close it, or use it in a `with` statement: a process may be at work for it.

    Attributes:
        sampling_rate: in Hz.
        channels: number of channels.
    """

    def __init__(self, source: ByteSource, sound: Sound) -> None:
        self.sampling_rate = sound.sampling_rate
        self.channels = sound.channels
        self._source = source
        self._sound = sound
        self._closed = False
        self._lock = Lock()

    def blocks(self) -> Iterator[Floats]:
        """Decode block by block, as fast as they are taken and hardly ahead of that.

        Blocks may be taken in different threads, one at a time. The reader closes itself at the end, at an error, and
        where this iterator is closed.

        Yields:
            float32 samples of shape (channel, time) at the file's own rate, at most `BLOCK_SECONDS` of them and never
            none, integers scaled to [-1, 1). Put together they are what `service.preprocess.decode.decode` returns.
            An array may be a transposed view.

        Raises:
            NotDecodable: it turns out that this is no audio after all, or the file breaks the decoder.
            AudioEmpty: there are no samples at all.
            AudioTooLong: more audio than is taken.
            AudioTruncated: the audio is damaged, or ends before the length that its header declares.
            ServiceError: the upload cannot be read back; not the client's fault.
            ValueError: the reader is closed.
        """
        try:
            while (block := self._next()) is not None:
                yield block
        finally:
            self.close()

    def close(self) -> None:
        """Free what reads the file, at once or when a block that is being decoded is done. May be called again."""
        with self._lock:
            self._closed = True
            self._sound.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _next(self) -> Floats | None:
        with self._lock:
            if self._closed:
                raise ValueError("The reader is closed.")
            try:
                return self._sound.read()
            finally:
                self._source.check()


def open_reader(data: Data, *, max_duration: float) -> AudioReader:
    """Begin to decode a file, of any format that `service.preprocess.decode.decode` takes.

    Args:
        data: the file's bytes, or a seekable binary file, which must stay open and in its place while it is read.
        max_duration: the longest audio taken, in seconds.

    Raises:
        NotDecodable: not audio in a supported format, no audio stream, or rate and channels out of bounds.
        AudioEmpty: no bytes or no samples.
        AudioTooLong: the header declares more audio than is taken.
        AudioTruncated: the file ends before the end that its header declares.
        QueueFull: as many files as may be are being read by FFmpeg.
        ServiceError: the upload cannot be read back or no decoder can be started; not the client's fault.
    """
    source = ByteSource(data)
    try:
        sound = open_sound(source, Limits(max_duration, whole=False))
    except ServiceError:
        source.check()
        raise
    return AudioReader(source, sound)
