"""The child side of `service.preprocess.ffmpeg.sandbox`: give up every right, then decode what comes through the pipe.

Imports neither numpy nor anything else that is slow to load or large.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any, BinaryIO

# PyAV imports these when it meets such a stream, which is too late once no file can be opened.
import av.audio.codeccontext
import av.audio.stream
import av.subtitles.codeccontext
import av.subtitles.stream
import av.video.codeccontext
import av.video.stream  # noqa: F401 - imported for what it leaves in sys.modules

from service.errors import AudioError, NotDecodable
from service.preprocess.byte_source import ByteSource
from service.preprocess.decoding_limits import Limits
from service.preprocess.ffmpeg.chunked_file import PIECE, PiecedFile
from service.preprocess.ffmpeg.decoder import Block, decode

SECONDS = 60.0
"""Processor time for one file, to which comes a 60th of the longest duration. An honest hour of AAC takes ten seconds.

Time spent waiting, for a parent that is slow to take the samples or for a processor that others use, does not count.
"""

_ROOM = 320 << 20
"""Bytes of memory for a file: FFmpeg's own, the pieces of the file that are kept, and one block of samples."""


def main() -> None:
    """Answer requests until standard input ends or a file has shaken this process."""
    requests = sys.stdin.buffer
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    _confine()
    _send(answers, {"ready": True})
    while line := requests.readline():
        request = json.loads(line)
        # The signal ends the process, even inside a C function.
        signal.setitimer(signal.ITIMER_PROF, SECONDS + request["max_duration"] / 60)
        last = _answer(request, requests, answers)
        signal.setitimer(signal.ITIMER_PROF, 0)
        _send(answers, last)
        if last.get("last"):
            return


def _answer(request: dict[str, Any], requests: BinaryIO, answers: BinaryIO) -> dict[str, object]:
    """Send all blocks of a file, and return what is to be said after them."""
    size = request["bytes"]

    def fetch(place: int) -> bytes:
        _send(answers, {"want": place})
        return _receive(requests, min(PIECE, size - place))

    file = PiecedFile(size, _receive(requests, min(PIECE, size)), fetch)
    try:
        for block in decode(
            ByteSource(io.BufferedReader(file, PIECE)), Limits(request["max_duration"], request["whole"])
        ):
            _send_block(answers, block)
    except AudioError as error:
        return {"code": error.code, "detail": error.detail}
    except Exception:
        # FFmpeg out of memory, text that is no UTF-8, numbers that overflow: PyAV has an exception for each.
        return {"code": NotDecodable.code, "detail": "The bytes could not be decoded.", "last": True}
    return {"end": True}


def _receive(requests: BinaryIO, size: int) -> bytes:
    data = b""
    with contextlib.suppress(MemoryError):
        data = requests.read(size)
    if len(data) < size:
        # Nobody is there any more, or what comes next would be taken for something else. From within FFmpeg no
        # exception is sure to get out.
        os._exit(1)
    return data


def _send_block(answers: BinaryIO, block: Block) -> None:
    facts = {
        "sample_format": block.sample_format,
        "sampling_rate": block.sampling_rate,
        "channels": block.channels,
        "frames": block.frames,
    }
    _send(answers, facts, *block.planes)


def _send(answers: BinaryIO, line: dict[str, object], *planes: bytearray) -> None:
    try:
        answers.write(json.dumps(line).encode() + b"\n")
        for plane in planes:
            answers.write(plane)
        answers.flush()
    except BrokenPipeError:
        os._exit(1)


def _confine() -> None:
    """Give up what decoding does not need."""
    with contextlib.suppress(ValueError, OSError):  # not every system has these
        Path("/proc/self/oom_score_adj").write_text("1000")  # where memory runs out, this is the process to end
        occupied = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        # What needs more address space fails to allocate it.
        resource.setrlimit(resource.RLIMIT_AS, (occupied + _ROOM, occupied + _ROOM))
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.dup2(null, sys.stderr.fileno())
    os.close(null)
    for what in (resource.RLIMIT_CORE, resource.RLIMIT_FSIZE, resource.RLIMIT_NPROC, resource.RLIMIT_NOFILE):
        resource.setrlimit(what, (0, 0))


if __name__ == "__main__":
    main()
