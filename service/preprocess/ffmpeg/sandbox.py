"""Run FFmpeg where a hostile file harms nothing: in child processes that keep no more than a pair of pipes.

FFmpeg's demuxers believe what headers say (12 KB of MP4 can make an index of gigabytes), and PyAV 17.1 to 18 free some
channel layouts twice, which ends the process. A child that crashes, hangs or eats memory fails one upload. The service
does not notice, and never loads FFmpeg itself. A child can open no file and no socket and start no process, and its
memory and time are bounded. An exchange costs about a millisecond; children start when needed (0.2 s) and are kept.

A child holds neither the whole file nor all its samples: it asks for the file piece by piece and waits until its
samples are taken. So nothing in either process depends on how long a file is, and a reader that takes its time holds a
child, but no processor.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.errors import (
    AudioEmpty,
    AudioError,
    AudioTooLong,
    AudioTruncated,
    NotDecodable,
    QueueFull,
    ServiceError,
)
from service.preprocess.byte_source import ByteSource
from service.preprocess.decoding_limits import Limits, block_frames
from service.preprocess.ffmpeg.child import BrokenChildError, Child
from service.results import Floats

_log = logging.getLogger(__name__)

PROCESSES = min(4, os.cpu_count() or 1)
"""Most files that are decoded as a whole by FFmpeg at the same time; more wait. So many children are kept, too."""

READERS = 16
"""Most files that are read block by block through FFmpeg at the same time. A child that waits takes 40 MB."""

_ERRORS: dict[str, type[AudioError]] = {
    error.code: error for error in (NotDecodable, AudioEmpty, AudioTooLong, AudioTruncated)
}
_DTYPES = {"u8": np.uint8, "s16": np.int16, "s32": np.int32, "s64": np.int64, "flt": np.float32, "dbl": np.float64}

_slots = threading.BoundedSemaphore(PROCESSES)
_readers = threading.BoundedSemaphore(READERS)
_idle: list[Child] = []


def warm_up() -> None:
    """Start one child, so that the first file does not wait for it.

    Raises:
        ServiceError: no child can be started.
    """
    with _slots:
        _idle.append(_take())


@dataclass(frozen=True, slots=True)
class _Facts:
    """What a child says of a block that follows."""

    dtype: type[Any]
    planar: bool
    sampling_rate: int
    channels: int
    frames: int


class FFmpegSound:
    """A file that a child decodes, of any format in `ffmpeg.decoder.DEMUXERS`: its first audio stream.

    See `service.preprocess.open.Sound`. A file that is to be held as a whole waits for its turn.

    Args:
        source: the file.
        limits: what is taken of it.

    Raises:
        NotDecodable: not audio, no audio stream, an unsupported codec, rate and channels out of bounds, or a file that
            breaks the decoder.
        AudioEmpty: an audio stream without samples.
        AudioTooLong: more samples than are taken, all within the first block.
        AudioTruncated: much of the audio is damaged, all within the first block.
        QueueFull: `READERS` files are being read block by block.
        ServiceError: no child can be started.
    """

    def __init__(self, source: ByteSource, limits: Limits) -> None:
        self._source = source
        self._limits = limits
        self._total = 0
        self._slot = _slots if limits.whole else _readers
        if not self._slot.acquire(blocking=limits.whole):
            raise QueueFull("Too many long files are being decoded.")
        try:
            self._child: Child | None = _take()
        except BaseException:
            self._slot.release()
            raise
        self._reusable = False
        try:
            with _believed():
                self._child.begin(source, limits)
                first = self._next(self._child)
                if first is None:
                    raise BrokenChildError
        except BaseException:
            self.close()
            raise
        self._upcoming: _Facts | None = first
        self.sampling_rate = first.sampling_rate
        self.channels = first.channels

    def read(self) -> Floats | None:
        """Decode the next block; None after the last. For what it raises see `service.preprocess.open.Sound`."""
        if self._child is None:
            return None
        with _believed():
            facts = self._upcoming or self._next(self._child)
            self._upcoming = None
            if facts is None:
                self.close()
                return None
            if (facts.sampling_rate, facts.channels) != (self.sampling_rate, self.channels):
                raise BrokenChildError
            if facts.planar:
                return _to_float(self._child.read_samples((facts.channels, facts.frames), facts.dtype))
            return _to_float(self._child.read_samples((facts.frames, facts.channels), facts.dtype)).T

    def read_all(self) -> Floats:
        """Decode everything; raises as `read` does."""
        block = self.read()
        if block is None:
            raise AudioEmpty("The file holds no samples.")
        if (following := self.read()) is None:
            return block
        # Memory is taken only where samples are written, and what is left over is given back in place.
        whole = np.empty((self._limits.frames(self.sampling_rate, self.channels), self.channels), np.float32)
        whole[: block.shape[1]] = block.T
        while following is not None:
            whole[self._total - following.shape[1] : self._total] = following.T
            following = self.read()
        whole.resize((self._total, self.channels), refcheck=False)
        return whole.T

    def close(self) -> None:
        """Keep the child where it has done its work, or else end it. May be called again."""
        if self._child is None:
            return
        if self._reusable and len(_idle) < PROCESSES:
            _idle.append(self._child)
        else:
            self._child.end()
        self._child = None
        self._slot.release()

    def _next(self, child: Child) -> _Facts | None:
        """What the child says next: facts about a block, None after the last; or the error that it found is raised."""
        line = child.answer(self._source)
        if "code" in line:
            self._reusable = not line.get("last")
            raise _ERRORS.get(str(line["code"]), NotDecodable)(str(line.get("detail")))
        if "end" in line:
            self._reusable = True
            return None
        return self._believe(line)

    def _believe(self, line: dict[str, Any]) -> _Facts:
        """Check a line about a block: a child that broke out of FFmpeg's limits is not believed."""
        try:
            kind: str = line["sample_format"]
            rate, channels, frames = (int(line[name]) for name in ("sampling_rate", "channels", "frames"))
            dtype = _DTYPES[kind.removesuffix("p")]
            budget = self._limits.frames(rate, channels)
        except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, NotDecodable) as error:
            raise BrokenChildError from error
        self._total += frames
        if not 0 < frames <= block_frames(rate, channels) or self._total > budget:
            raise BrokenChildError
        return _Facts(dtype, kind.endswith("p"), rate, channels, frames)


def _take() -> Child:
    with contextlib.suppress(IndexError):
        while True:
            child = _idle.pop()
            if child.alive:
                return child
            child.end()
    try:
        return Child()
    except (BrokenChildError, OSError) as error:
        _log.exception("The process that runs FFmpeg cannot be started; is PyAV installed?")
        raise ServiceError("The audio decoder cannot be started.") from error


@contextlib.contextmanager
def _believed() -> Iterator[None]:
    try:
        yield
    except BrokenChildError as error:
        raise NotDecodable("The bytes could not be decoded: the decoder gave up on them.") from error


def _to_float(raw: NDArray[Any]) -> Floats:
    """Scale integers to [-1, 1); floats stay as they are, infinite where float32 cannot hold them."""
    if raw.dtype == np.float32:
        return raw
    if raw.dtype == np.float64:
        with np.errstate(over="ignore"):
            return raw.astype(np.float32)
    if raw.dtype == np.uint8:
        raw = raw.view(np.int8) ^ np.int8(-128)  # the middle of unsigned bytes is 128
    scale = np.float32(0.5 ** (8 * raw.dtype.itemsize - 1))
    samples: Floats = np.multiply(raw, scale, dtype=np.float32)
    return samples


@atexit.register
def close() -> None:
    """End the children that wait for work."""
    while _idle:
        _idle.pop().end()
