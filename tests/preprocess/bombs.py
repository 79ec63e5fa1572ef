"""Small files that would take much time or memory, or crash a decoder."""

from __future__ import annotations

import io
import struct
from fractions import Fraction

import av
import numpy as np

from tests.audio_samples import encode, speech


def long_flac(seconds: int) -> bytes:
    """Silence at 16 kHz in the largest and emptiest frames that FLAC has: six hours make 74 KB."""
    block = 65_535
    total = seconds * 16_000
    fields = 16_000 << 44 | (16 - 1) << 36 | total
    info = struct.pack(">HH6xQ16x", block, block, fields)
    frames = bytearray(b"fLaC" + struct.pack(">I", 0x80 << 24 | len(info)) + info)
    for number in range(-(-total // block)):
        size = min(block, total - number * block)
        # 16 kHz, mono, 16 bits; the size of the block at the end of the header
        head = b"\xff\xf8\x75\x08" + _utf8(number) + struct.pack(">H", size - 1)
        frame = head + bytes([_crc(head, 8, 0x07)]) + b"\0\0\0"  # one constant subframe of zeros
        frames += frame + struct.pack(">H", _crc(frame, 16, 0x8005))
    return bytes(frames)


def _utf8(number: int) -> bytes:
    return chr(number).encode("utf-8", "surrogatepass")


def _crc(data: bytes, bits: int, polynomial: int) -> int:
    value = 0
    for byte in data:
        value ^= byte << bits - 8
        for _ in range(8):
            value = value << 1 ^ (polynomial if value >> bits - 1 & 1 else 0)
            value &= (1 << bits) - 1
    return value


def long_opus(seconds: int, container: str) -> bytes:
    """One packet of near silence (120 ms), repeated: an hour in well under a megabyte."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        options = {"frame_duration": "120", "b": "6000"}
        stream = output.add_stream("libopus", rate=48_000, layout="mono", options=options)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 5760), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 48_000
        packet = bytes(next(iter([*stream.encode(frame), *stream.encode(None)])))
        for number in range(round(seconds / 0.12)):
            copy = av.Packet(packet)
            copy.stream, copy.time_base = stream, Fraction(1, 48_000)
            copy.pts = copy.dts = number * 5760
            copy.duration = 5760
            output.mux(copy)
    return file.getvalue()


def wav_that_claims(samples: int) -> bytes:
    """An RF64 file of a second whose header claims any number of samples."""
    data = bytearray(encode("rf64", speech(seconds=1), 16_000))
    place = data.index(b"ds64") + 8
    data[place : place + 24] = struct.pack("<QQQ", 2 * samples + 72, 2 * samples, samples)
    return bytes(data)


def flac_that_claims(samples: int) -> bytes:
    """A FLAC file of a second whose header claims up to 2**36 - 1 samples."""
    data = bytearray(encode("flac", speech(seconds=1), 16_000))
    place = data.index(b"fLaC") + 8 + 10
    fields = struct.unpack_from(">Q", data, place)[0]
    struct.pack_into(">Q", data, place, fields >> 36 << 36 | samples)
    return bytes(data)


def mp4_with_index(entries: int) -> bytes:
    """A small MP4 whose tables claim so many samples; FFmpeg's index takes 36 bytes for each."""
    data = bytearray(encode("mp4", speech(seconds=1), 16_000))
    for table, position, values in (
        (b"stsz", 8, (1, entries)),  # each sample has one byte
        (b"stts", 8, (1, entries, 2)),
        (b"stsc", 8, (1, 1, entries, 1)),  # all in the first chunk
    ):
        struct.pack_into(f">{len(values)}I", data, data.index(table) + position, *values)
    return bytes(data)


def mov_with_custom_layout() -> bytes:
    """A valid file whose channels are ordered right, left: FFmpeg allocates memory for such a layout."""
    data = encode("mov", speech(channels=2), 16_000)
    start = data.index(b"chan") - 4
    size = struct.unpack_from(">I", data, start)[0]
    # The tag 0: a description of each channel follows, its label and twenty bytes of position.
    channels = b"".join(struct.pack(">I20x", label) for label in (2, 1))
    box = b"chan" + struct.pack(">IIII", 0, 0, 0, 2) + channels
    changed = bytearray(data[:start] + struct.pack(">I", 4 + len(box)) + box + data[start + size :])
    for parent in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"in24"):
        place = data.index(parent) - 4
        struct.pack_into(">I", changed, place, struct.unpack_from(">I", data, place)[0] + 4 + len(box) - size)
    return bytes(changed)


def video_only() -> bytes:
    """An MP4 with a video stream and no audio stream."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as output:
        stream = output.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for part in (av.VideoFrame(64, 64, "yuv420p"), None):
            output.mux(stream.encode(part))
    return file.getvalue()
