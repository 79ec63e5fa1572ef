"""A process that decodes with FFmpeg, as the service sees it: `service.preprocess.ffmpeg.child_main` behind two pipes.

    service ──▶ child   one line of JSON (bytes, longest duration, whether it is for the whole), the first piece
    service ◀── child   a line that wants another piece, which is sent at once; any number of times, or
                        a line about a block (format, rate, channels, frames), and its planes of samples; or
                        a last line (the end, or an error)

Neither side is ever ahead of the other by more than one block and what fits into a pipe.
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
from service.preprocess.decoding_limits import Limits
from service.preprocess.ffmpeg.chunked_file import PIECE

_LONGEST_LINE = 4096

_MOST_READ = 16
"""How often a file may be read by a child, in all. FFmpeg reads most files once, and looks at some places twice."""

_ALLOWANCE = 64 << 20
"""Bytes that may be read anyway: in a small file, FFmpeg may jump to and fro without end."""


_MALLOC = {"MALLOC_TRIM_THRESHOLD_": f"{16 << 20}", "MALLOC_MMAP_THRESHOLD_": f"{4 << 20}"}
"""glibc gives the memory of a block back to the system after each file by default. To get it again page by page takes a
fifth of the time that a clip of 3 s takes."""


class BrokenChildError(Exception):
    """A child has ended, or says what makes no sense."""


class Child:
    """One process. Not shared between threads.

    Raises:
        BrokenChildError: it ends at once.
        OSError: it cannot be started.
    """

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "service.preprocess.ffmpeg.child_main"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd="/",
            # No secrets of the service; the same packages as here.
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
        self._left = 0
        try:
            if self._read_line() != {"ready": True}:
                raise BrokenChildError
        except BrokenChildError:
            self.end()
            raise

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def begin(self, source: ByteSource, limits: Limits) -> None:
        """Ask for a file to be decoded.

        Raises:
            BrokenChildError: the child is of no use any more.
        """
        self._left = _ALLOWANCE + _MOST_READ * source.size
        request = {"bytes": source.size, "max_duration": limits.max_duration, "whole": limits.whole}
        self._send(json.dumps(request).encode() + b"\n" + self._piece(source, 0))

    def answer(self, source: ByteSource) -> dict[str, Any]:
        """Return the next line about the samples, and before that send the child what it wants of the file.

        Raises:
            BrokenChildError: the child is of no use any more, or the file cannot be read back.
        """
        while "want" in (line := self._read_line()):
            if not isinstance(line["want"], int):
                raise BrokenChildError
            self._send(self._piece(source, line["want"]))
        return line

    def read_samples(self, shape: tuple[int, int], dtype: type[Any]) -> NDArray[Any]:
        """Read what follows the line about a block.

        Raises:
            BrokenChildError: the child has ended.
        """
        raw = np.empty(shape, dtype)
        if self._output.readinto(raw.data.cast("B")) != raw.nbytes:
            raise BrokenChildError
        return raw

    def end(self) -> None:
        """Stop the process and wait for it."""
        self._process.kill()
        with contextlib.suppress(OSError):  # what is still in the buffer has no reader any more
            self._input.close()
        self._output.close()
        self._process.wait()

    def _piece(self, source: ByteSource, place: int) -> bytes:
        piece = source.at(place, PIECE)
        self._left -= len(piece)
        if len(piece) != min(PIECE, source.size - place) or self._left < 0:
            raise BrokenChildError
        return piece

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
