"""The child side of `service.preprocess.sandbox`: give up every right, then decode what comes through the pipe.

Imports neither numpy nor anything else that is slow to load or large.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import BinaryIO

# PyAV imports these when it meets such a stream, which is too late once no file can be opened.
import av.audio.codeccontext
import av.audio.stream
import av.subtitles.codeccontext
import av.subtitles.stream
import av.video.codeccontext
import av.video.stream  # noqa: F401 - imported for what it leaves in sys.modules

from service.errors import AudioError, NotDecodable
from service.preprocess.ffmpeg import Decoded, decode
from service.preprocess.limits import MAX_VALUES
from service.preprocess.source import ByteSource

SECONDS = 60.0
"""Wall time for one file. An honest hour of AAC takes about ten seconds."""

_ROOM = (256 << 20) + 8 * MAX_VALUES
"""Bytes of memory beyond those for the upload itself: FFmpeg's own, and the samples as 64-bit floats."""


def main() -> None:
    """Answer requests until standard input ends or a file has shaken this process."""
    requests = sys.stdin.buffer
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    occupied = _confine()
    _send(answers, {"ready": True})
    while line := requests.readline():
        request = json.loads(line)
        data = requests.read(request["bytes"])
        _bound_memory(occupied + _ROOM + 2 * len(data))
        signal.setitimer(signal.ITIMER_REAL, SECONDS)  # its signal ends the process, even inside a C function
        answer, decoded = _run(data, request["max_duration"])
        signal.setitimer(signal.ITIMER_REAL, 0)
        _send(answers, answer, decoded)
        if answer.get("last"):
            return


def _run(data: bytes, max_duration: float) -> tuple[dict[str, object], Decoded | None]:
    try:
        decoded = decode(ByteSource(data), max_duration)
    except AudioError as error:
        return {"code": error.code, "detail": error.detail}, None
    except Exception:
        # FFmpeg out of memory, text that is no UTF-8, numbers that overflow: PyAV has an exception for each.
        return {"code": NotDecodable.code, "detail": "The bytes could not be decoded.", "last": True}, None
    facts: dict[str, object] = {
        "sample_format": decoded.sample_format,
        "sampling_rate": decoded.sampling_rate,
        "channels": decoded.channels,
        "frames": decoded.frames,
    }
    return facts, decoded


def _send(answers: BinaryIO, answer: dict[str, object], decoded: Decoded | None = None) -> None:
    answers.write(json.dumps(answer).encode() + b"\n")
    for plane in decoded.planes if decoded else ():
        answers.write(plane)
    answers.flush()


def _bound_memory(size: int) -> None:
    """Let this process have an address space of `size` bytes; what needs more fails to allocate it."""
    with contextlib.suppress(ValueError, OSError):  # not every system has such a bound
        resource.setrlimit(resource.RLIMIT_AS, (size, resource.getrlimit(resource.RLIMIT_AS)[1]))


def _confine() -> int:
    """Give up what decoding does not need; return the address space in use in bytes, 0 where nobody can tell."""
    occupied = 0
    with contextlib.suppress(OSError):
        occupied = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        Path("/proc/self/oom_score_adj").write_text("1000")  # where memory runs out, this is the process to end
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.dup2(null, sys.stderr.fileno())
    os.close(null)
    for what in (resource.RLIMIT_CORE, resource.RLIMIT_FSIZE, resource.RLIMIT_NPROC, resource.RLIMIT_NOFILE):
        resource.setrlimit(what, (0, 0))
    return occupied


if __name__ == "__main__":
    main()
