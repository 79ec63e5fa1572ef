"""Where live audio comes from: a file, as fast as it is wanted or as it plays, or the microphone."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from service.errors import MissingExtra, SetupError
from service.extras import extra
from service.preprocess.reader import open_reader
from service.results import Floats

_LONGEST = 86_400.0
"""Seconds of a file; how long a stream may be is the server's to say."""

_PIECE = 0.1
"""Seconds of one message where it is sent as it plays."""

_MICROPHONE_RATE = 16_000
_MOST_WAITING = 100
"""Pieces of the microphone that may wait for the network (10 s)."""


@dataclass(frozen=True, slots=True)
class Sound:
    """Interleaved samples in `pieces`, as `encoding` says, at `sampling_rate` Hz."""

    sampling_rate: int
    channels: int
    encoding: Literal["s16le", "f32le"]
    pieces: AsyncIterator[bytes]


@asynccontextmanager
async def file_sound(path: str, *, realtime: bool) -> AsyncIterator[Sound]:
    """Open a file of any format that the service takes.

    Args:
        path: where it is.
        realtime: whether it comes as fast as it plays.

    Raises:
        AudioError: if it is not usable, also on the way.
        OSError: if it cannot be opened.
    """
    with (
        await asyncio.to_thread(open, path, "rb") as file,
        await asyncio.to_thread(open_reader, file, max_duration=_LONGEST) as reader,
    ):
        blocks = _blocks(reader.blocks())
        pieces = _as_it_plays(blocks, reader.sampling_rate) if realtime else _as_fast_as_wanted(blocks)
        yield Sound(reader.sampling_rate, reader.channels, "f32le", pieces)


@asynccontextmanager
async def microphone() -> AsyncIterator[Sound]:
    """Listen to the default microphone, until somebody interrupts the program (Ctrl+C).

    Raises:
        MissingExtra: if the extra [mic] is not installed.
        SetupError: if there is no microphone.
    """
    sounddevice = _sounddevice()
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[bytes | None] = asyncio.Queue(_MOST_WAITING)

    def put(piece: bytes | None) -> None:
        if queue.full():  # the network is too slow for live audio, and nobody wants old one
            queue.get_nowait()
        queue.put_nowait(piece)

    def heard(data: Any, _frames: int, _time: Any, _status: Any) -> None:
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
            blocksize=round(_PIECE * _MICROPHONE_RATE),
            callback=heard,
        )
        stream.start()
    except sounddevice.PortAudioError as error:
        loop.remove_signal_handler(signal.SIGINT)
        raise SetupError(f"The microphone cannot be used: {error}") from error
    print("Listening; Ctrl+C ends.", file=sys.stderr)
    try:
        yield Sound(_MICROPHONE_RATE, 1, "s16le", pieces())
    finally:
        stream.stop()
        stream.close()
        loop.remove_signal_handler(signal.SIGINT)


async def _blocks(blocks: Iterator[Floats]) -> AsyncIterator[Floats]:
    """The same, decoded in threads."""
    while (block := await asyncio.to_thread(next, blocks, None)) is not None:
        yield block


async def _as_fast_as_wanted(blocks: AsyncIterator[Floats]) -> AsyncIterator[bytes]:
    async for block in blocks:
        yield _bytes(block)


async def _as_it_plays(blocks: AsyncIterator[Floats], sampling_rate: int) -> AsyncIterator[bytes]:
    """Pieces, each when its last sample would have been heard."""
    loop = asyncio.get_running_loop()
    size = round(_PIECE * sampling_rate)
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
    except OSError as error:  # its wheels for Linux come without the library that it is made of
        raise MissingExtra(
            "The microphone needs PortAudio, which is not installed: apt install libportaudio2"
        ) from error
    return sounddevice
