"""The child process of `sandbox`: drops all privileges, then decodes files from its pipe. Imports no large modules."""

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

# PyAV imports these on the first such stream, which is too late once no file can be opened.
import av.audio.codeccontext
import av.audio.stream
import av.subtitles.codeccontext
import av.subtitles.stream
import av.video.codeccontext
import av.video.stream  # noqa: F401 - imported only so that it is loaded

from service.errors import AudioError, NotDecodable
from service.preprocess.byte_source import ByteSource
from service.preprocess.decoding_limits import DecodingLimits
from service.preprocess.ffmpeg.chunked_file import CHUNK, ChunkedFile
from service.preprocess.ffmpeg.decoder import RawBlock, decode_blocks
from service.preprocess.ffmpeg.system_calls import allow_only_decoding

_MEMORY = 320 << 20
"""Bytes of memory for a file: FFmpeg's own, the cached chunks of the file, and one block of samples."""


def main() -> None:
    """Answer requests until standard input ends or the decoder may be in an invalid state."""
    requests = sys.stdin.buffer
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    filtered = _confine()
    _send(answers, {"ready": True, "filtered": filtered})
    while line := requests.readline():
        request = json.loads(line)
        # The signal ends the process, even inside a C function.
        signal.setitimer(signal.ITIMER_PROF, request["cpu_seconds"])
        result = _decode(request, requests, answers)
        signal.setitimer(signal.ITIMER_PROF, 0)
        _send(answers, result)
        if result.get("last"):
            return


def _decode(request: dict[str, Any], requests: BinaryIO, answers: BinaryIO) -> dict[str, object]:
    """Send all blocks of a file, and return the line that follows them."""
    size = request["bytes"]

    def fetch(position: int) -> bytes:
        _send(answers, {"want": position})
        return _receive(requests, min(CHUNK, size - position))

    file = ChunkedFile(size, _receive(requests, min(CHUNK, size)), fetch)
    limits = DecodingLimits(request["max_duration"], request["whole"])
    try:
        for block in decode_blocks(ByteSource(io.BufferedReader(file, CHUNK)), limits):
            _send_block(answers, block)
    except AudioError as error:
        return {"code": error.code, "detail": error.detail}
    except Exception:
        # PyAV has many exceptions: FFmpeg out of memory, text that is not UTF-8, numbers that overflow.
        return {"code": NotDecodable.code, "detail": "The file could not be decoded.", "last": True}
    return {"end": True}


def _receive(requests: BinaryIO, size: int) -> bytes:
    data = b""
    with contextlib.suppress(MemoryError):
        data = requests.read(size)
    if len(data) < size:
        # The parent is gone, or the next bytes would be misread. Not raised, since FFmpeg may swallow an exception.
        os._exit(1)
    return data


def _send_block(answers: BinaryIO, block: RawBlock) -> None:
    header = {name: getattr(block, name) for name in ("sample_format", "sampling_rate", "channels", "frames")}
    _send(answers, header, *block.planes)


def _send(answers: BinaryIO, line: dict[str, object], *planes: bytearray) -> None:
    try:
        answers.write(json.dumps(line).encode() + b"\n")
        for plane in planes:
            answers.write(plane)
        answers.flush()
    except BrokenPipeError:
        os._exit(1)


def _confine() -> bool:
    """Drop the privileges that decoding does not need; returns whether all system calls but a few are forbidden."""
    with contextlib.suppress(ValueError, OSError):  # not every system has these
        Path("/proc/self/oom_score_adj").write_text("1000")  # out of memory, the kernel kills this process first
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        # Allocations beyond this address space fail.
        resource.setrlimit(resource.RLIMIT_AS, (used + _MEMORY, used + _MEMORY))
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.dup2(null, sys.stderr.fileno())
    os.close(null)
    for limit in (resource.RLIMIT_CORE, resource.RLIMIT_FSIZE, resource.RLIMIT_NPROC, resource.RLIMIT_NOFILE):
        resource.setrlimit(limit, (0, 0))
    return allow_only_decoding()


if __name__ == "__main__":
    main()
