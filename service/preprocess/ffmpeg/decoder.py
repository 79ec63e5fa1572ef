"""Decode with FFmpeg (PyAV) what libsndfile does not. Runs in a process of its own: see `sandbox`.

The upload reaches FFmpeg as a nameless buffer. Demuxers and audio decoders are listed by name and no protocol is
allowed: a playlist, an SDP or an ffconcat script opens nothing, and no video decoder ever runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import av
from av.audio.frame import AudioFrame
from av.audio.plane import AudioPlane
from av.audio.stream import AudioStream
from av.container import InputContainer

from service.errors import AudioEmpty, AudioTruncated, NotDecodable
from service.preprocess.byte_source import ByteSource
from service.preprocess.decoding_limits import Limits, block_frames

DEMUXERS = "wav,mp3,flac,ogg,matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,aac,amr,aiff,caf,asf,au,w64,mpegts,gsm"
DECODERS = (
    "aac,aac_latm,ac3,adpcm_ima_qt,adpcm_ima_wav,adpcm_ms,alac,amrnb,amrwb,eac3,flac,g722,g726,g726le,gsm,gsm_ms,"
    "libopencore_amrnb,libopencore_amrwb,libopus,libspeex,libvorbis,mp1float,mp2,mp2float,mp3,mp3float,opus,pcm_alaw,"
    "pcm_f32be,pcm_f32le,pcm_f64be,pcm_f64le,pcm_mulaw,pcm_s16be,pcm_s16le,pcm_s24be,pcm_s24le,pcm_s32be,pcm_s32le,"
    "pcm_s8,pcm_u8,speex,vorbis,wmalossless,wmapro,wmav1,wmav2,wmavoice"
)
_OPTIONS = {
    "format_whitelist": DEMUXERS,
    "protocol_whitelist": "none",
    # To find out about streams FFmpeg decodes a little of each, video too unless a list forbids it.
    "codec_whitelist": DECODERS,
}
# Tags are in whatever encoding the writer had. PyAV 19 takes them as they are, and has no option for it any more.
_TAGS: dict[str, Any] = {} if int(av.__version__.split(".")[0]) >= 19 else {"metadata_errors": "replace"}


@dataclass(frozen=True, slots=True)
class Block:
    """Raw samples as a decoder gave them.

    Attributes:
        sample_format: FFmpeg's name, such as `fltp`; a `p` at the end stands for one plane per channel.
        sampling_rate: in Hz.
        channels: number of channels.
        frames: samples per channel.
        planes: the samples' bytes in native order, one plane per channel or all channels interleaved in one.
    """

    sample_format: str
    sampling_rate: int
    channels: int
    frames: int
    planes: list[bytearray]


class _Collector:
    """Makes blocks of what the decoder gives, mostly some thousand samples at a time."""

    def __init__(self, first: AudioFrame, limits: Limits) -> None:
        self._limits = limits
        self._kind = _kind(first)
        _, self._rate, self._channels = self._kind
        self._budget = limits.frames(self._rate, self._channels)
        self._block = block_frames(self._rate, self._channels)
        planes = self._channels if first.format.is_planar else 1
        self._planes = [bytearray() for _ in range(planes)]
        self._frame_bytes = first.format.bytes * self._channels // planes
        self._frames = 0
        self.total = 0

    def add(self, frame: AudioFrame) -> None:
        """Take a frame's samples.

        Raises:
            NotDecodable: it is not of the same kind as the first.
            AudioTooLong: there are more samples than are taken.
        """
        if _kind(frame) != self._kind:
            raise NotDecodable("The audio changes its sampling rate or its channels on the way.")
        size = frame.samples * self._frame_bytes
        # Not `frame.planes`, which from eight channels on reads past the last plane: PyAV 19 then raises.
        for index, plane in enumerate(self._planes):
            plane += memoryview(AudioPlane(frame, index))[:size]
        self._frames += frame.samples
        self.total += frame.samples
        if self.total > self._budget:
            raise self._limits.too_long(self._rate, self._channels)

    def blocks(self, *, last: bool = False) -> Iterator[Block]:
        """Give away what makes whole blocks, with `last` the rest too."""
        while self._frames >= (1 if last else self._block):
            yield self._take(min(self._frames, self._block))

    def _take(self, frames: int) -> Block:
        size = frames * self._frame_bytes
        taken = self._planes
        self._planes = [plane[size:] for plane in taken]  # little or nothing
        for plane in taken:
            del plane[size:]
        self._frames -= frames
        return Block(*self._kind, frames, taken)


def _kind(frame: AudioFrame) -> tuple[str, int, int]:
    return frame.format.name, frame.sample_rate, frame.layout.nb_channels


def decode(source: ByteSource, limits: Limits) -> Iterator[Block]:
    """Decode the first audio stream.

    Args:
        source: the file.
        limits: what is taken of it.

    Yields:
        Blocks of `block_frames`, and a last one that is shorter; all of one kind.

    Raises:
        NotDecodable: not audio, no audio stream, an unsupported codec, or rate and channels out of bounds.
        AudioEmpty: an audio stream without samples.
        AudioTooLong: more seconds, or more samples over all channels, than are taken.
        AudioTruncated: much of the audio is damaged.
    """
    try:
        with av.open(source, mode="r", options=_OPTIONS, **_TAGS) as container:
            yield from _decode_stream(container, _first_audio_stream(container), limits)
    except av.FFmpegError as error:
        raise NotDecodable("The bytes are not audio in a format that is supported.") from error


def _first_audio_stream(container: InputContainer) -> AudioStream:
    if not container.streams.audio:
        raise NotDecodable("The file holds no audio stream.")
    stream = container.streams.audio[0]
    # PyAV leaves this None, whatever its stub says, where FFmpeg has no decoder.
    if getattr(stream.codec_context, "name", None) not in DECODERS.split(","):
        raise NotDecodable("The audio is encoded in a way that is not supported.")
    stream.codec_context.thread_count = 1
    return stream


def _decode_stream(container: InputContainer, stream: AudioStream, limits: Limits) -> Iterator[Block]:
    collector: _Collector | None = None
    packets = damaged = 0
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except av.FFmpegError:
            # A recording may begin or end in the middle of a frame, and one lost packet is not the end.
            damaged += 1
            if damaged > packets + 100:
                break
            continue
        packets += 1
        for frame in frames:
            if collector is None:
                collector = _Collector(frame, limits)
            collector.add(frame)
            yield from collector.blocks()
    if damaged > packets:
        raise NotDecodable("The bytes look like audio, but most of them cannot be decoded.")
    if collector is None or not collector.total:
        raise AudioEmpty("The file holds no samples.")
    if damaged > 2 + packets // 50:
        raise AudioTruncated(f"The audio is damaged: {damaged} of {packets + damaged} packets cannot be decoded.")
    yield from collector.blocks(last=True)
