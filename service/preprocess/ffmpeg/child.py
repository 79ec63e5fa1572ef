"""A child process that decodes with FFmpeg, as the service sees it.

The child runs `service.preprocess.ffmpeg.child_main`; both talk through two pipes:

    service ──▶ child   a line of JSON (size of the file, longest duration, whole or blocks), and the first chunk
    service ◀── child   a request for another chunk, which is sent at once; any number of times; or
                        a line about a block (format, rate, channels, frames), followed by its planes of samples; or
                        a last line (the end, or an error)

Neither process is ever ahead of the other by more than one block and what fits into a pipe.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from service.preprocess.byte_source import ByteSource
from service.preprocess.decoding_limits import DecodingLimits
from service.preprocess.ffmpeg.chunked_file import CHUNK

_LONGEST_LINE = 4096

_MOST_READS = 16
"""How many times its size a child may read of a file. FFmpeg reads most files once, and some parts twice."""

_ALLOWANCE = 64 << 20
"""Bytes that a child may read in addition: in a small file, FFmpeg may seek back and forth very often."""

_MALLOC = {"MALLOC_TRIM_THRESHOLD_": f"{16 << 20}", "MALLOC_MMAP_THRESHOLD_": f"{4 << 20}"}
"""By default glibc returns the memory of a block to the system after each file. Getting it back page by page would take
a fifth of the time that a clip of 3 s takes."""


class BrokenChildError(Exception):
    """A child has ended, or it sent something invalid."""


class Child:
    """One child process. Not thread-safe.

    Raises:
        BrokenChildError: it ends immediately.
        OSError: it cannot be started.
    """

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "service.preprocess.ffmpeg.child_main"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd="/",
            # The same packages as here, but no secrets of the service.
            env={
                "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),  # noqa: PTH109 - a plain string
                "PYTHONSAFEPATH": "1",
                **_MALLOC,
                **{name: os.environ[name] for name in ("LD_LIBRARY_PATH", "PYTHONHOME") if name in os.environ},
            },
            start_new_session=True,  # Ctrl-C in the terminal is for the service, which may still need its children
        )
        self._input = cast(io.BufferedWriter, self._process.stdin)
        self._output = cast(io.BufferedReader, self._process.stdout)
        self._bytes_left = 0
        try:
            if self._read_line() != {"ready": True}:
                raise BrokenChildError
        except BrokenChildError:
            self.end()
            raise

    @property
    def alive(self) -> bool:
        """Whether the process is running."""
        return self._process.poll() is None

    def begin(self, source: ByteSource, limits: DecodingLimits) -> None:
        """Request that a file be decoded.

        Raises:
            BrokenChildError: the child cannot be used any more, or the file cannot be read back.
        """
        self._bytes_left = _ALLOWANCE + _MOST_READS * source.size
        request = {"bytes": source.size, "max_duration": limits.max_duration, "whole": limits.whole}
        self._send(json.dumps(request).encode() + b"\n" + self._chunk(source, 0))

    def answer(self, source: ByteSource) -> dict[str, Any]:
        """Send the chunks of the file that the child requests, until it sends a line about samples or an error.

        Raises:
            BrokenChildError: the child cannot be used any more, or the file cannot be read back.
        """
        while "want" in (line := self._read_line()):
            if not isinstance(line["want"], int):
                raise BrokenChildError
            self._send(self._chunk(source, line["want"]))
        return line

    def read_samples(self, shape: tuple[int, int], dtype: type[Any]) -> NDArray[Any]:
        """Read the samples that follow the line about a block.

        Raises:
            BrokenChildError: the child has ended.
        """
        raw = np.empty(shape, dtype)
        if self._output.readinto(raw.data.cast("B")) != raw.nbytes:
            raise BrokenChildError
        return raw

    def end(self) -> None:
        """Kill the process and wait for it."""
        self._process.kill()
        with contextlib.suppress(OSError):  # nobody reads what is still buffered
            self._input.close()
        self._output.close()
        self._process.wait()

    def _chunk(self, source: ByteSource, position: int) -> bytes:
        chunk = source.at(position, CHUNK)
        self._bytes_left -= len(chunk)
        if len(chunk) != min(CHUNK, source.size - position) or self._bytes_left < 0:
            raise BrokenChildError
        return chunk

    def _send(self, data: bytes) -> None:
        try:
            self._input.write(data)
            self._input.flush()
        except OSError as error:
            raise BrokenChildError from error

    def _read_line(self) -> dict[str, Any]:
        line = self._output.readline(_LONGEST_LINE)
        try:
            answer = json.loads(line)
        except ValueError as error:
            raise BrokenChildError from error
        if not isinstance(answer, dict):
            raise BrokenChildError
        return answer
