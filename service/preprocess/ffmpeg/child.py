"""A child process that decodes with FFmpeg, as the service sees it.

The child runs `service.preprocess.ffmpeg.child_main`; both talk through two pipes:

    service ──▶ child   a line of JSON (size of the file, limits, whole or blocks), and the first chunk
    service ◀── child   a request for another chunk, which is sent at once; any number of times; or
                        a line about a block (format, rate, channels, frames), followed by its planes of samples; or
                        a last line (the end, or an error)

Neither process is ever ahead of the other by more than one block and what fits into a pipe. The service does not wait
for a child that has stopped, nor longer than `_SECONDS_PER_CPU_SECOND` says.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import select
import signal
import subprocess
import sys
import time
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from service.preprocess.byte_source import ByteSource
from service.preprocess.decoding_limits import DecodingLimits
from service.preprocess.ffmpeg.chunked_file import CHUNK

_log = logging.getLogger(__name__)

_LONGEST_LINE = 4096

_MOST_READS = 16
"""How many times its size a child may read of a file. FFmpeg reads most files once, and some parts twice."""

_ALLOWANCE = 64 << 20
"""Bytes that a child may read in addition: in a small file, FFmpeg may seek back and forth very often."""

_CPU_SECONDS = 60.0
"""Processor time for one file, plus a 60th of the longest duration. An hour of AAC takes ten seconds."""

_SECONDS_PER_CPU_SECOND = 4.0
"""How long the service waits for a child, for each second of its processor time: others use the processors as well."""

_START_SECONDS = 60.0
"""How long the service waits for a child that starts. It takes a fifth of a second on an idle machine."""

_STALL_SECONDS = 5.0
"""A child that takes no processor time for so long, while the service waits for it, has stopped. It is noticed after
twice that time at the latest."""

_FROM_OUTSIDE = {-number for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)}
"""Statuses of a child that was ended by somebody else, or by the kernel because memory ran out."""

_MALLOC = {"MALLOC_TRIM_THRESHOLD_": f"{16 << 20}", "MALLOC_MMAP_THRESHOLD_": f"{4 << 20}"}
"""By default glibc returns the memory of a block to the system after each file. Getting it back page by page would take
a fifth of the time that a clip of 3 s takes."""


class BrokenChildError(Exception):
    """A child cannot be used any more.

    Args:
        reason: for the log; continues "the child".

    Attributes:
        by_file: whether the file is the cause, as far as can be known.
        retry: whether another child may succeed.
    """

    def __init__(self, reason: str, *, by_file: bool = True, retry: bool = False) -> None:
        super().__init__(reason)
        self.by_file = by_file
        self.retry = retry


class Child:
    """One child process. Not thread-safe, except for `kill`.

    Raises:
        BrokenChildError: it ends immediately.
        OSError: it cannot be started.
    """

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "service.preprocess.ffmpeg.child_main"],
            bufsize=0,
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
        self._input = cast(io.FileIO, self._process.stdin)
        self._output = cast(io.FileIO, self._process.stdout)
        for pipe in (self._input, self._output):
            os.set_blocking(pipe.fileno(), False)
        self._received = b""
        self._bytes_left = 0
        self._seconds_left = _START_SECONDS
        self._killed = False
        try:
            ready = self._read_line()
            if ready.get("ready") is not True:
                raise BrokenChildError("did not become ready")
        except BrokenChildError:
            self.end()
            raise
        if not ready.get("filtered"):
            _log.warning("The process that runs FFmpeg is only partly confined: there is no filter of system calls.")

    @property
    def alive(self) -> bool:
        """Whether the process is running."""
        return self._process.poll() is None

    def begin(self, source: ByteSource, limits: DecodingLimits) -> None:
        """Request that a file be decoded.

        Raises:
            BrokenChildError: the child cannot be used any more, or the file cannot be read back.
        """
        cpu_seconds = _CPU_SECONDS + limits.max_duration / 60
        self._bytes_left = _ALLOWANCE + _MOST_READS * source.size
        self._seconds_left = _SECONDS_PER_CPU_SECOND * cpu_seconds
        request = {
            "bytes": source.size,
            "cpu_seconds": cpu_seconds,
            "max_duration": limits.max_duration,
            "whole": limits.whole,
        }
        self._send(json.dumps(request).encode() + b"\n" + self._chunk(source, 0))

    def answer(self, source: ByteSource) -> dict[str, Any]:
        """Send the chunks of the file that the child requests, until it sends a line about samples or an error.

        Raises:
            BrokenChildError: the child cannot be used any more, or the file cannot be read back.
        """
        while "want" in (line := self._read_line()):
            if not isinstance(line["want"], int):
                raise BrokenChildError("asked for invalid bytes")
            self._send(self._chunk(source, line["want"]))
        return line

    def read_samples(self, shape: tuple[int, int], dtype: type[Any]) -> NDArray[Any]:
        """Read the samples that follow the line about a block.

        Raises:
            BrokenChildError: the child cannot be used any more.
        """
        raw = np.empty(shape, dtype)
        left = raw.data.cast("B")
        early, self._received = self._received[: len(left)], self._received[len(left) :]
        left[: len(early)] = early
        left = left[len(early) :]
        while left:
            left = left[self._receive(left) :]
        return raw

    def kill(self) -> None:
        """Kill the process, perhaps from another thread; whoever waits for it gets an error."""
        self._killed = True
        self._process.kill()

    def end(self) -> None:
        """Kill the process and wait for it. May be called more than once."""
        self._process.kill()
        self._input.close()
        self._output.close()
        self._process.wait()

    def _chunk(self, source: ByteSource, position: int) -> bytes:
        chunk = source.at(position, CHUNK)
        self._bytes_left -= len(chunk)
        if len(chunk) != min(CHUNK, source.size - position) or self._bytes_left < 0:
            raise BrokenChildError("read too much of the file, or it cannot be read back")
        return chunk

    def _send(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            try:
                sent = self._input.write(left)
            except OSError as error:
                raise self._ended() from error
            if sent is None:
                self._wait(self._input, select.POLLOUT)
            else:
                left = left[sent:]

    def _read_line(self) -> dict[str, Any]:
        buffer = memoryview(bytearray(_LONGEST_LINE))
        while b"\n" not in self._received and len(self._received) < _LONGEST_LINE:
            self._received += buffer[: self._receive(buffer)]
        line, _, self._received = self._received.partition(b"\n")
        try:
            answer = json.loads(line)
        except ValueError as error:
            raise BrokenChildError("sent a line that is not valid") from error
        if not isinstance(answer, dict):
            raise BrokenChildError("sent a line that is not valid")
        return answer

    def _receive(self, buffer: memoryview) -> int:
        """Wait for bytes, and return how many have been read into `buffer`."""
        while (size := self._output.readinto(buffer)) is None:
            self._wait(self._output, select.POLLIN)
        if size == 0:
            raise self._ended()
        return size

    def _wait(self, pipe: io.FileIO, event: int) -> None:
        """Wait until a pipe can be read or written, or is closed by the child."""
        poll = select.poll()
        poll.register(pipe, event)
        used: float | None = None
        ready = False
        while not ready:
            began = time.monotonic()
            ready = bool(poll.poll(1000 * _STALL_SECONDS))
            self._seconds_left -= time.monotonic() - began
            if self._seconds_left < 0:
                raise BrokenChildError("takes too long", by_file=False, retry=True)
            if not ready:
                before, used = used, self._cpu_seconds()
                if used == before:
                    raise BrokenChildError("has stopped", by_file=False, retry=True)

    def _cpu_seconds(self) -> float:
        """Processor time that the process has used."""
        # As clock_getcpuclockid(3) computes the clock of a process; Python has only that of a thread.
        clock = (~self._process.pid << 3) | 2
        with contextlib.suppress(OSError):  # not every system has this clock
            return time.clock_gettime(clock)
        return 0.0

    def _ended(self) -> BrokenChildError:
        """The error for a child that has closed its pipe, by its status."""
        self._process.kill()  # has no effect on a process that is ending
        status = self._process.wait()
        if self._killed:
            return BrokenChildError("was ended by the service", by_file=False)
        if status == -signal.SIGPROF:
            return BrokenChildError("used too much processor time")
        return BrokenChildError(f"ended with status {status}", by_file=status not in _FROM_OUTSIDE, retry=True)
