"""The audio that `emotion2vec-service stream` sends: a file, at full speed or in real time, or the microphone."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal

import numpy as np

from service.commands.printing import length_notes
from service.errors import MissingExtra, SetupError
from service.extras import extra
from service.preprocess.reader import open_reader
from service.results import Floats

_MAX_DURATION = 86_400.0
"""Seconds of a file. The server has its own limit for streams."""

_PIECE_SECONDS = 0.1
"""Seconds of audio in one message in real time."""

_MICROPHONE_RATE = 16_000
_MAX_WAITING = 100
"""Pieces from the microphone that may wait to be sent (10 s)."""


@dataclass(frozen=True, slots=True)
class AudioInput:
    """Interleaved samples in `pieces`, in this encoding, at `sampling_rate` Hz."""

    sampling_rate: int
    channels: int
    encoding: Literal["s16le", "f32le"]
    pieces: AsyncIterator[bytes]


@asynccontextmanager
async def file_input(file: BinaryIO, name: str, *, realtime: bool) -> AsyncIterator[AudioInput]:
    """Decode a file in any format that the service decodes.

    Args:
        file: seekable.
        name: of the file, for notes on standard error.
        realtime: whether the pieces come at the speed at which the file plays.

    Raises:
        AudioError: if the file is not usable; also while the pieces are read.
    """
    with await asyncio.to_thread(open_reader, file, max_duration=_MAX_DURATION) as reader:
        blocks = _blocks(reader.blocks())
        pieces = _in_real_time(blocks, reader.sampling_rate) if realtime else _at_full_speed(blocks)
        yield AudioInput(reader.sampling_rate, reader.channels, "f32le", pieces)
        for note in length_notes(truncated=reader.truncated, unread_bytes=reader.unread_bytes):
            print(f"{name}: {note}", file=sys.stderr)


@asynccontextmanager
async def microphone_input() -> AsyncIterator[AudioInput]:
    """Record from the default microphone until the program is interrupted (Ctrl+C).

    Raises:
        MissingExtra: if the extra [mic] is not installed.
        SetupError: if there is no microphone.
    """
    sounddevice = _sounddevice()
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[bytes | None] = asyncio.Queue(_MAX_WAITING)

    def put(piece: bytes | None) -> None:
        if queue.full():  # the network is too slow; drop the oldest audio
            queue.get_nowait()
        queue.put_nowait(piece)

    def recorded(data: Any, _frames: int, _time: Any, _status: Any) -> None:
        loop.call_soon_threadsafe(put, bytes(data))

    async def pieces() -> AsyncIterator[bytes]:
        while (piece := await queue.get()) is not None:
            yield piece

    loop.add_signal_handler(signal.SIGINT, put, None)
    try:
        stream = sounddevice.RawInputStream(
            samplerate=_MICROPHONE_RATE,
            channels=1,
            dtype="int16",
            blocksize=round(_PIECE_SECONDS * _MICROPHONE_RATE),
            callback=recorded,
        )
        stream.start()
    except sounddevice.PortAudioError as error:
        loop.remove_signal_handler(signal.SIGINT)
        raise SetupError(f"The microphone cannot be used: {error}") from error
    print("Listening; Ctrl+C ends.", file=sys.stderr)
    try:
        yield AudioInput(_MICROPHONE_RATE, 1, "s16le", pieces())
    finally:
        stream.stop()
        stream.close()
        loop.remove_signal_handler(signal.SIGINT)


async def _blocks(blocks: Iterator[Floats]) -> AsyncIterator[Floats]:
    """Decode the blocks in a thread."""
    while (block := await asyncio.to_thread(next, blocks, None)) is not None:
        yield block


async def _at_full_speed(blocks: AsyncIterator[Floats]) -> AsyncIterator[bytes]:
    async for block in blocks:
        yield _bytes(block)


async def _in_real_time(blocks: AsyncIterator[Floats], sampling_rate: int) -> AsyncIterator[bytes]:
    """Yield each piece when its last sample would have been played."""
    loop = asyncio.get_running_loop()
    size = round(_PIECE_SECONDS * sampling_rate)
    began, played = loop.time(), 0
    async for block in blocks:
        for first in range(0, block.shape[1], size):
            piece = block[:, first : first + size]
            played += piece.shape[1]
            await asyncio.sleep(began + played / sampling_rate - loop.time())
            yield _bytes(piece)


def _bytes(samples: Floats) -> bytes:
    """Samples of shape (channel, time), interleaved."""
    return np.ascontiguousarray(samples.T, dtype="<f4").tobytes()


def _sounddevice() -> Any:
    try:
        with extra("mic", "The microphone needs"):
            import sounddevice
    except OSError as error:  # its wheels for Linux do not include PortAudio
        raise MissingExtra(
            "The microphone needs PortAudio, which is not installed: apt install libportaudio2"
        ) from error
    return sounddevice
