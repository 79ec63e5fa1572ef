"""The samples of a stream: decoded from bytes, and buffered while a window needs them."""

from __future__ import annotations

import numpy as np

from service.errors import InvalidMessage
from service.preprocess.clips import choose
from service.recognition.live.options import StreamOptions
from service.results import Floats

_DTYPES: dict[str, np.dtype[np.generic]] = {"s16le": np.dtype("<i2"), "f32le": np.dtype("<f4")}
_FULL_SCALE = np.float32(32_768)
"""Full scale of 16 bits, as for files, so that a stream and a file with the same samples have the same scores."""


def decode_samples(data: bytes, options: StreamOptions) -> Floats:
    """Samples from one binary message.

    Args:
        data: interleaved samples in the format of the options.
        options: of the stream.

    Returns:
        float32 of shape (channel, time): the channel that is selected, or all.

    Raises:
        InvalidMessage: if the last sample is incomplete.
        AudioNotFinite: if samples are NaN, infinite or far beyond full scale.
    """
    width = options.sample_bytes * options.channels
    if len(data) % width:
        raise InvalidMessage(
            f"A binary message of {len(data)} bytes does not hold whole samples of {options.channels} channel(s), "
            f"which take {width} bytes."
        )
    interleaved = np.frombuffer(data, _DTYPES[options.encoding]).reshape(-1, options.channels)
    if options.encoding == "s16le":
        samples = interleaved.T.astype(np.float32, order="C") / _FULL_SCALE
    else:
        samples = interleaved.T.astype(np.float32, order="C")
    if not samples.size:
        return np.empty((options.kept_channels, 0), np.float32)
    return np.stack(choose(samples, "split" if options.select == "mix" else options.select))


_SMALL = 4096
"""Samples of a block that is not shrunk any more."""


class SampleBuffer:
    """The latest samples of some channels, in one block of memory that is reused.

    Args:
        channels: number of channels.

    Attributes:
        total: samples of each channel that have been appended so far; the first one has number 0.
    """

    def __init__(self, channels: int) -> None:
        self.total = 0
        self._block = np.empty((channels, 0), np.float32)
        self._begin = 0  # the buffered samples are `_block[:, _begin:_end]`
        self._end = 0

    @property
    def first(self) -> int:
        """Number of the first buffered sample."""
        return self.total - self._size

    def append(self, samples: Floats) -> None:
        """Add `samples` (channel, time) at the end."""
        size = samples.shape[1]
        if self._end + size > self._block.shape[1]:
            self._make_room(size)
        self._block[:, self._end : self._end + size] = samples
        self._end += size
        self.total += size

    def cut(self, first: int, last: int) -> Floats:
        """A copy (channel, time) of the samples from number `first` up to `last`.

        Raises:
            ValueError: if not all of them are buffered.
        """
        if not self.first <= first <= last <= self.total:
            raise ValueError(f"samples {first} to {last} are not among {self.first} to {self.total}")
        shift = self._end - self.total
        return self._block[:, first + shift : last + shift].copy()

    def drop(self, before: int) -> None:
        """Drop the samples before number `before`."""
        self._begin = max(self._begin, min(self._end, self._end - (self.total - before)))
        if self._block.shape[1] > max(_SMALL, 8 * self._size):  # after a large message
            self._move(np.empty((len(self._block), 2 * self._size), np.float32))

    @property
    def _size(self) -> int:
        """Number of buffered samples."""
        return self._end - self._begin

    def _make_room(self, size: int) -> None:
        """Move the samples to the beginning of the block, or of a larger one if moves would be too frequent."""
        needed, capacity = self._size + size, self._block.shape[1]
        fits = needed <= capacity and 2 * self._size <= capacity
        self._move(self._block if fits else np.empty((len(self._block), 2 * needed), np.float32))

    def _move(self, block: Floats) -> None:
        block[:, : self._size] = self._block[:, self._begin : self._end]
        self._block, self._begin, self._end = block, 0, self._size
