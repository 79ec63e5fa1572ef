"""Files with several tracks and with gaps in their timestamps, and chained files."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, cast

import av
import numpy as np
from av.audio.stream import AudioStream
from av.stream import Disposition

from service.results import Floats


@dataclass(frozen=True, slots=True)
class Track:
    """An audio track of a file.

    Attributes:
        samples: float32 of shape (channel, time).
        rate: their sampling rate in Hz.
        codec: FFmpeg's name of the encoder.
        stamps: pairs: packets from so many seconds on are stamped so many seconds later.
        default: whether it is marked as the default track.
    """

    samples: Floats
    rate: int
    codec: str
    stamps: tuple[tuple[float, float], ...] = ()
    default: bool = False

    def shift(self, seconds: float) -> float:
        """By how much a packet at so many seconds is stamped later."""
        return next((later for begin, later in reversed(self.stamps) if max(0.0, seconds) >= begin), 0.0)


def mux(container: str, *tracks: Track, video_at: float | None = None, options: dict[str, str] | None = None) -> bytes:
    """Write tracks into a file; with `video_at` also a picture that is shown from so many seconds on."""
    file = io.BytesIO()
    packets: list[tuple[float, av.Packet[Any]]] = []
    with av.open(file, "w", format=container, options=options or {}) as output:
        if video_at is not None:
            video = output.add_stream("mpeg4", rate=10, width=32, height=32, pix_fmt="yuv420p")
            picture = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
            picture.pts = 0
            pictures = [*video.encode(picture), *video.encode(None)]
            packets += [(video_at, _later(packet, video_at)) for packet in pictures]
        for track in tracks:
            layout = {1: "mono", 2: "stereo"}[len(track.samples)]
            stream = cast(AudioStream, output.add_stream(track.codec, rate=track.rate, layout=layout))
            if track.default:
                stream.disposition = Disposition.default.value  # type: ignore[assignment] # PyAV takes no Disposition
            interleaved = np.ascontiguousarray(track.samples)
            frame = av.AudioFrame.from_ndarray(interleaved, format="fltp", layout=layout)
            frame.sample_rate = track.rate
            frame.pts = 0
            for packet in [*stream.encode(frame), *stream.encode(None)] if track.samples.size else []:
                seconds = float((packet.pts or 0) * packet.time_base)
                packets.append((seconds, _later(packet, track.shift(seconds))))
        for _, packet in sorted(packets, key=lambda pair: pair[0]):
            output.mux(packet)
    return file.getvalue()


def _later(packet: av.Packet[Any], seconds: float) -> av.Packet[Any]:
    ticks = round(Fraction(seconds) / packet.time_base)
    packet.pts = (packet.pts or 0) + ticks
    packet.dts = (packet.dts or 0) + ticks
    return packet


def ogg_pages(data: bytes) -> Iterator[bytearray]:
    """The pages of an Ogg file."""
    position = 0
    while position < len(data):
        sizes = data[position + 27 : position + 27 + data[position + 26]]
        end = position + 27 + len(sizes) + sum(sizes)
        yield bytearray(data[position:end])
        position = end


def with_ogg_gap(data: bytes, page: int, samples: int) -> bytes:
    """Stamp the pages from one on so many samples later."""
    result = b""
    for index, content in enumerate(ogg_pages(data)):
        (granule,) = struct.unpack_from("<q", content, 6)
        if index >= page and granule > 0:
            struct.pack_into("<q", content, 6, granule + samples)
        content[22:26] = bytes(4)
        content[22:26] = struct.pack("<I", _checksum(content))
        result += content
    return result


def _checksum(page: bytes | bytearray) -> int:
    """The CRC-32 of Ogg."""
    value = 0
    for byte in page:
        value ^= byte << 24
        for _ in range(8):
            value = (value << 1) ^ (0x104C11DB7 if value & 0x80000000 else 0)
    return value
