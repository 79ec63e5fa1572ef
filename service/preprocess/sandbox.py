"""Run FFmpeg where a hostile file harms nothing: in child processes that keep no more than a pair of pipes.

FFmpeg's demuxers believe what headers say (12 KB of MP4 can make an index of gigabytes), and PyAV 17.1 to 18 free some
channel layouts twice, which ends the process. A child that crashes, hangs or eats memory fails one upload. The service
does not notice, and never loads FFmpeg itself. A child can open no file and no socket and start no process, and its
memory and time are bounded. An exchange costs about a millisecond; children start when needed (0.2 s) and are kept.

    parent ──▶ child   one line of JSON (bytes, longest duration), the upload
    parent ◀── child   one line of JSON (format, rate, channels, frames; or an error), the planes of samples
"""

from __future__ import annotations

import atexit
import contextlib
import io
import json
import logging
import os
import subprocess
import sys
import threading
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from service.errors import AudioEmpty, AudioError, AudioTooLong, AudioTruncated, NotDecodable, ServiceError
from service.preprocess.limits import frame_budget
from service.preprocess.source import ByteSource
from service.results import Floats, Waveform

_log = logging.getLogger(__name__)

PROCESSES = min(4, os.cpu_count() or 1)
"""Most children, and so most files that are decoded by FFmpeg at the same time."""

_PIECE = 1 << 20
_LONGEST_LINE = 4096
_ERRORS: dict[str, type[AudioError]] = {
    error.code: error for error in (NotDecodable, AudioEmpty, AudioTooLong, AudioTruncated)
}
_DTYPES = {"u8": np.uint8, "s16": np.int16, "s32": np.int32, "s64": np.int64, "flt": np.float32, "dbl": np.float64}


class _BrokenChildError(Exception):
    """A child has ended, or says what makes no sense."""


class _Child:
    """One process. Not shared between threads."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "service.preprocess.ffmpeg_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd="/",
            # No secrets of the service; the same packages as here.
            env={
                "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),  # noqa: PTH109 - a plain string
                "PYTHONSAFEPATH": "1",
                **{name: os.environ[name] for name in ("LD_LIBRARY_PATH", "PYTHONHOME") if name in os.environ},
            },
            start_new_session=True,  # Ctrl-C in the terminal is for the service, which may still need its children
        )
        self._input = cast(io.BufferedWriter, self._process.stdin)
        self._output = cast(io.BufferedReader, self._process.stdout)
        try:
            if self._read_line() != {"ready": True}:
                raise _BrokenChildError
        except _BrokenChildError:
            self.end()
            raise

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, source: ByteSource, max_duration: float) -> dict[str, Any]:
        """Send a file and return the first line of the answer.

        Raises:
            _BrokenChildError: the child is of no use any more.
        """
        try:
            request = {"bytes": source.size, "max_duration": max_duration}
            self._input.write(json.dumps(request).encode() + b"\n")
            source.seek(0)
            while piece := source.read(_PIECE):
                self._input.write(piece)
            self._input.flush()
        except OSError as error:
            raise _BrokenChildError from error
        if source.tell() != source.size:  # the upload cannot be read back, and the child still waits for it
            raise _BrokenChildError
        return self._read_line()

    def read_samples(self, shape: tuple[int, int], dtype: type[Any]) -> NDArray[Any]:
        """Read what follows the first line of an answer."""
        raw = np.empty(shape, dtype)
        if self._output.readinto(raw.data.cast("B")) != raw.nbytes:
            raise _BrokenChildError
        return raw

    def _read_line(self) -> dict[str, Any]:
        line = self._output.readline(_LONGEST_LINE)
        try:
            answer = json.loads(line)
        except ValueError as error:
            raise _BrokenChildError from error
        if not isinstance(answer, dict):
            raise _BrokenChildError
        return answer

    def end(self) -> None:
        """Stop the process and wait for it."""
        self._process.kill()
        with contextlib.suppress(OSError):  # what is still in the buffer has no reader any more
            self._input.close()
        self._output.close()
        self._process.wait()


_slots = threading.BoundedSemaphore(PROCESSES)
_idle: list[_Child] = []


def warm_up() -> None:
    """Start one child, so that the first file does not wait for it.

    Raises:
        ServiceError: no child can be started.
    """
    with _slots:
        _idle.append(_take())


def decode(source: ByteSource, max_duration: float) -> Waveform:
    """Decode the first audio stream of a file of any format in `service.preprocess.ffmpeg.DEMUXERS`.

    Args:
        source: the file.
        max_duration: the longest audio taken, in seconds.

    Returns:
        The waveform; its samples may be a transposed view.

    Raises:
        NotDecodable: not audio, no audio stream, an unsupported codec, rate and channels out of bounds, or a file that
            breaks the decoder.
        AudioEmpty: an audio stream without samples.
        AudioTooLong: more seconds, or more samples over all channels, than are taken.
        AudioTruncated: much of the audio is damaged.
        ServiceError: no child can be started.
    """
    with _slots:
        child = _take()
        try:
            answer = child.ask(source, max_duration)
            waveform = None if "code" in answer else _read_waveform(child, answer, max_duration)
        except _BrokenChildError as error:
            child.end()
            raise NotDecodable("The bytes could not be decoded: the decoder gave up on them.") from error
        if answer.get("last"):
            child.end()
        else:
            _idle.append(child)
    if waveform is None:
        raise _ERRORS.get(answer["code"], NotDecodable)(str(answer.get("detail")))
    return waveform


def _take() -> _Child:
    while _idle:
        child = _idle.pop()
        if child.alive:
            return child
        child.end()
    try:
        return _Child()
    except (_BrokenChildError, OSError) as error:
        _log.exception("The process that runs FFmpeg cannot be started; is PyAV installed?")
        raise ServiceError("The audio decoder cannot be started.") from error


def _read_waveform(child: _Child, answer: dict[str, Any], max_duration: float) -> Waveform:
    """Read the samples of an answer as float32. A child that broke out of FFmpeg's limits is not believed."""
    try:
        kind: str = answer["sample_format"]
        rate, channels, frames = (int(answer[name]) for name in ("sampling_rate", "channels", "frames"))
        dtype = _DTYPES[kind.removesuffix("p")]
        budget = frame_budget(rate, channels, max_duration)
    except (LookupError, TypeError, ValueError, AttributeError, NotDecodable) as error:
        raise _BrokenChildError from error
    if not 0 < frames <= budget:
        raise _BrokenChildError
    if kind.endswith("p"):
        return Waveform(_to_float(child.read_samples((channels, frames), dtype)), rate)
    return Waveform(_to_float(child.read_samples((frames, channels), dtype)).T, rate)


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
