"""Run FFmpeg in child processes without privileges, connected only by pipes, so that a hostile file is harmless.

FFmpeg's demuxers trust headers (12 KB of MP4 can allocate an index of gigabytes), and PyAV 17.1 to 18 free some channel
layouts twice, which crashes the process. A child can only compute and use its pipes: it cannot open files or sockets,
start processes or reach others (`system_calls`), and its memory and its time are limited. One file costs about a
millisecond of communication; children start on demand (0.2 s) and are reused.

If a child crashes, is killed or stops, a new one decodes the file once more: an earlier file may have damaged the old
one. If the new one crashes too, the file is to blame (`NotDecodable`); if it is killed or stops, the file is not
(`DecoderUnavailable`).

A child requests the file in chunks and waits until its samples are read, so the memory of either process does not
depend on the length of the file.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import logging
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.cores import usable_cores
from service.errors import (
    AudioEmpty,
    AudioError,
    AudioTooLong,
    AudioTruncated,
    DecoderUnavailable,
    NotDecodable,
    QueueFull,
    ServiceError,
)
from service.preprocess.byte_source import ByteSource
from service.preprocess.decoding_limits import DecodingLimits, block_frames
from service.preprocess.ffmpeg.child import BrokenChildError, Child
from service.preprocess.ffmpeg.converter import Converter
from service.results import Floats

_log = logging.getLogger(__name__)

PROCESSES = min(4, usable_cores())
"""Most files that FFmpeg decodes as a whole at the same time; others wait. As many idle children are kept."""

READERS = 16
"""Most files that FFmpeg decodes block by block at the same time. A waiting child takes 40 MB."""

_MOST_CHANGES = 1000
"""Most changes of sampling rate or channels in a file. Each takes a tenth of a millisecond."""

_ERRORS: dict[str, type[AudioError]] = {
    error.code: error for error in (NotDecodable, AudioEmpty, AudioTooLong, AudioTruncated)
}
_DTYPES = {"u8": np.uint8, "s16": np.int16, "s32": np.int32, "s64": np.int64, "flt": np.float32, "dbl": np.float64}

_slots = threading.BoundedSemaphore(PROCESSES)
_readers = threading.BoundedSemaphore(READERS)
_idle: list[Child] = []
_busy: set[Child] = set()


def warm_up() -> None:
    """Start one child in advance, so that the first file does not wait for it.

    Raises:
        ServiceError: no child can be started.
    """
    with _slots:
        _idle.append(_take_child())


@dataclass(frozen=True, slots=True)
class _BlockHeader:
    """The validated line that a child sends before the samples of a block."""

    dtype: type[Any]
    planar: bool
    sampling_rate: int
    channels: int
    frames: int

    @property
    def shape(self) -> tuple[int, int]:
        """Of the samples as they are sent."""
        return (self.channels, self.frames) if self.planar else (self.frames, self.channels)


class FFmpegFile:
    """A file that a child decodes, of any format in `ffmpeg.decoder.DEMUXERS`.

    See `service.preprocess.decode.AudioFile`. A file that is decoded as a whole waits for a free slot.

    Args:
        source: the file.
        limits: how much audio may be decoded.

    Raises:
        AudioError: as `service.preprocess.decode.open_audio_file`, for what the first block shows.
        QueueFull: `READERS` files are being decoded block by block.
        DecoderUnavailable: two children were killed or have stopped.
        ServiceError: no child can be started.
    """

    ended_early = False
    """FFmpeg reads what is there."""

    def __init__(self, source: ByteSource, limits: DecodingLimits) -> None:
        self._source = source
        self._limits = limits
        self._retried = False
        self._closed = False
        self._slot = _slots if limits.whole else _readers
        if not self._slot.acquire(blocking=limits.whole):
            raise QueueFull("Too many long files are being decoded.")
        try:
            self._decoding = self._start()
        except BaseException:
            self._slot.release()
            raise
        self.sampling_rate, self.channels = self._decoding.kind
        self._converted = self._decode()

    def read(self) -> Floats | None:
        """Decode the next block; None after the last. For the errors see `service.preprocess.decode.AudioFile`."""
        if self._closed:
            return None
        block = next(self._converted, None)
        if block is None:
            self.close()
        return block

    def read_all(self) -> Floats:
        """Decode everything; raises as `read` does."""
        blocks = self._blocks()
        first = next(blocks)  # there is one, or the constructor would have raised
        if (second := next(blocks, None)) is None:
            return first
        # Memory is used only where samples are written, and the unused rest is released in place.
        whole = np.empty((self._limits.frames(self.sampling_rate, self.channels), self.channels), np.float32)
        end = 0
        for block in itertools.chain([first, second], blocks):
            start, end = end, end + block.shape[1]
            whole[start:end] = block.T
        whole.resize((end, self.channels), refcheck=False)
        return whole.T

    def close(self) -> None:
        """Release the child and the slot. May be called more than once."""
        if not self._closed:
            self._closed = True
            self._decoding.close()
            self._slot.release()

    def _blocks(self) -> Iterator[Floats]:
        while (block := self.read()) is not None:
            yield block

    def _decode(self) -> Iterator[Floats]:
        """Yield all blocks. A second child begins again, and what the first one has sent is left out."""
        frames = 0
        while True:
            try:
                for block in _without(self._decoding.blocks(), frames):
                    frames += block.shape[1]
                    yield block
            except BrokenChildError as failure:
                self._decoding.close()
                self._decoding = self._start_again(failure)
                if self._decoding.kind != (self.sampling_rate, self.channels):
                    raise NotDecodable("The file could not be decoded: it broke the decoder.") from failure
            else:
                return

    def _start(self) -> _Decoding:
        """Have a child begin with the file."""
        try:
            return _Decoding(_take_child(), self._source, self._limits)
        except BrokenChildError as failure:
            return self._start_again(failure)

    def _start_again(self, failure: BrokenChildError) -> _Decoding:
        """Have a new child begin with the file, or raise the error if another one cannot succeed."""
        if self._retried or not failure.retry:
            raise _error_of(failure) from failure
        self._retried = True
        _log.warning("A process that decoded a file %s; another one decodes it again.", failure)
        try:
            decoding = _Decoding(_start_child(), self._source, self._limits)
        except BrokenChildError as again:
            raise _error_of(again) from again
        return decoding


class _Decoding:
    """The decoding of a file by one child.

    Args:
        child: belongs to this object from now on.
        source: the file.
        limits: how much audio may be decoded.

    Attributes:
        kind: sampling rate and channels of all blocks: those of the first.

    Raises:
        AudioError: the child reports it, or the file exceeds a limit.
        BrokenChildError: the child has failed.
    """

    def __init__(self, child: Child, source: ByteSource, limits: DecodingLimits) -> None:
        self._child = child
        self._source = source
        self._limits = limits
        self._total = 0
        self._reusable = False
        _busy.add(child)
        try:
            child.begin(source, limits)
            first = self._next_header()
            if first is None:
                raise BrokenChildError("sent no samples")
        except BaseException:
            self.close()
            raise
        self._first = first
        self.kind = (first.sampling_rate, first.channels)

    def close(self) -> None:
        """Keep the child for other files if it has finished this one, or else kill it. May be called more than once."""
        if self._child not in _busy:
            return
        _busy.discard(self._child)
        if self._reusable and len(_idle) < PROCESSES:
            _idle.append(self._child)
        else:
            self._child.end()

    def blocks(self) -> Iterator[Floats]:
        """Yield the blocks that the child sends, all with the rate and the channels of the first one. Once only."""
        converter: Converter | None = None
        kind = wanted = self.kind
        changes = 0
        header: _BlockHeader | None = self._first
        while header is not None:
            if kind != (kind := (header.sampling_rate, header.channels)):
                if (changes := changes + 1) > _MOST_CHANGES:
                    raise NotDecodable("The sampling rate or the channels change too often within the audio.")
                if converter is not None:
                    yield from self._within_limits(converter.rest())
                converter = None if kind == wanted else Converter(kind, wanted)
            samples = self._child.read_samples(header.shape, header.dtype)
            block = _to_float(samples) if header.planar else _to_float(samples).T
            yield from self._within_limits([block] if converter is None else converter.convert(block))
            header = self._next_header()
        if converter is not None:
            yield from self._within_limits(converter.rest())

    def _within_limits(self, blocks: Iterable[Floats]) -> Iterator[Floats]:
        for block in blocks:
            self._total += block.shape[1]
            if self._total > self._limits.frames(*self.kind):
                raise self._limits.too_long(*self.kind)
            yield block

    def _next_header(self) -> _BlockHeader | None:
        """Return the header of the next block, None after the last, or raise the error that the child reports."""
        line = self._child.answer(self._source)
        if "code" in line:
            self._reusable = not line.get("last")
            raise _ERRORS.get(str(line["code"]), NotDecodable)(str(line.get("detail")))
        if "end" in line:
            self._reusable = True
            return None
        return self._validate(line)

    def _validate(self, line: dict[str, Any]) -> _BlockHeader:
        """Validate a line about a block: the child is untrusted, since a file may have taken it over."""
        try:
            kind: str = line["sample_format"]
            rate, channels, frames = (int(line[name]) for name in ("sampling_rate", "channels", "frames"))
            dtype = _DTYPES[kind.removesuffix("p")]
            self._limits.frames(rate, channels)
        except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, NotDecodable) as error:
            raise BrokenChildError("sent a line about samples that is not valid") from error
        if not 0 < frames <= block_frames(rate, channels):
            raise BrokenChildError("sent a block that is too long")
        return _BlockHeader(dtype, kind.endswith("p"), rate, channels, frames)


def _take_child() -> Child:
    """Return an idle child, or start one."""
    with contextlib.suppress(IndexError):
        while True:
            child = _idle.pop()
            if child.alive:
                return child
            child.end()
    return _start_child()


def _start_child() -> Child:
    try:
        return Child()
    except (BrokenChildError, OSError) as error:
        if isinstance(error, BrokenChildError) and not error.by_file:
            raise _error_of(error) from error
        _log.exception("The process that runs FFmpeg cannot be started; is PyAV installed?")
        raise ServiceError("The audio decoder cannot be started.") from error


def _error_of(failure: BrokenChildError) -> ServiceError:
    """The error for the client."""
    if failure.by_file:
        return NotDecodable("The file could not be decoded: it broke the decoder.")
    _log.error("The process that decoded a file %s.", failure)
    return DecoderUnavailable("The process that decodes the file was ended or does not answer; try again later.")


def _without(blocks: Iterator[Floats], frames: int) -> Iterator[Floats]:
    """Leave out the first `frames` samples per channel."""
    for block in blocks:
        if frames < block.shape[1]:
            yield block[:, frames:]
        frames = max(0, frames - block.shape[1])


def _to_float(raw: NDArray[Any]) -> Floats:
    """Scale integers to [-1, 1); floats keep their values, infinite where float32 cannot represent them."""
    if raw.dtype == np.float32:
        return raw
    if raw.dtype == np.float64:
        with np.errstate(over="ignore"):
            return raw.astype(np.float32)
    if raw.dtype == np.uint8:
        raw = raw.view(np.int8) ^ np.int8(-128)  # unsigned samples are centred at 128
    scale = np.float32(0.5 ** (8 * raw.dtype.itemsize - 1))
    samples: Floats = np.multiply(raw, scale, dtype=np.float32)
    return samples


@atexit.register
def close() -> None:
    """End all idle children."""
    while _idle:
        _idle.pop().end()


def end_busy() -> None:
    """End the children that decode, for a process that stops: whoever waits for one gets DecoderUnavailable."""
    for child in list(_busy):
        child.kill()
