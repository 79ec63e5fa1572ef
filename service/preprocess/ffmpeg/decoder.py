"""Decode with FFmpeg (PyAV) what libsndfile does not. Runs in a child process: see `sandbox`.

The upload reaches FFmpeg as a buffer without a name. Only the demuxers and audio decoders listed here are allowed, and
no protocol: a playlist, an SDP or an ffconcat script opens nothing, and no video decoder ever runs.
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
from av.packet import Packet
from av.stream import Disposition

from service.errors import AudioEmpty, AudioTruncated, NotDecodable
from service.preprocess.byte_source import ByteSource
from service.preprocess.decoding_limits import DecodingLimits, block_frames
from service.preprocess.ffmpeg.clock import clock_of
from service.preprocess.links import find_links

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
    # FFmpeg probes streams by decoding a little of each, including video unless a list forbids it.
    "codec_whitelist": DECODERS,
}
_LEAST_LINK = 1 << 17
"""Bytes. A chain that was cut off may end with a link that has only a part of its headers or of its first page."""

# Tags may be in any encoding. PyAV 19 does not decode them strictly any more, and has no option for it.
_TAGS: dict[str, Any] = {} if int(av.__version__.split(".")[0]) >= 19 else {"metadata_errors": "replace"}


@dataclass(frozen=True, slots=True)
class RawBlock:
    """Samples in the format of the decoder.

    Attributes:
        sample_format: FFmpeg's name, such as `fltp`; a `p` at the end means one plane per channel.
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
    """Joins the decoder's frames, of mostly some thousand samples, into blocks."""

    def __init__(self, limits: DecodingLimits) -> None:
        self._limits = limits
        self._kind = ("", 0, 0)
        self._first_rate = self._budget = 0
        self._block = self._frame_bytes = self._frames = 0
        self._zero = b"\0"
        self._planes: list[bytearray] = []
        self.total = 0.0
        """Samples per channel so far, at the sampling rate of the first frame."""

    def add(self, frame: AudioFrame, silence: float) -> Iterator[RawBlock]:
        """Append a frame's samples.

        Args:
            frame: of any format, rate and channels; where they change, a new block begins.
            silence: seconds of silence before the frame.

        Yields:
            The full blocks, and the rest before a change.

        Raises:
            NotDecodable: rate or channels are out of bounds.
            AudioTooLong: there are more samples than the limits allow.
        """
        if self._kind != (kind := _kind(frame)):
            yield from self.blocks(last=True)
            self._begin(frame, kind)
        missing = round(silence * frame.sample_rate)
        self.total += (missing + frame.samples) * self._first_rate / frame.sample_rate
        if self.total > self._budget:
            raise self._limits.too_long(frame.sample_rate, frame.layout.nb_channels)
        while missing:
            part = min(missing, self._block)
            for plane in self._planes:
                plane += self._zero * (part * self._frame_bytes)
            self._frames += part
            missing -= part
            yield from self.blocks()
        size = frame.samples * self._frame_bytes
        # Not `frame.planes`, which with eight or more channels reads past the last plane: PyAV 19 then raises.
        for index, plane in enumerate(self._planes):
            plane += memoryview(AudioPlane(frame, index))[:size]
        self._frames += frame.samples
        yield from self.blocks()

    def blocks(self, *, last: bool = False) -> Iterator[RawBlock]:
        """Remove and return the full blocks, with `last` also the rest."""
        while self._frames >= (1 if last else self._block):
            yield self._take(min(self._frames, self._block))

    def _begin(self, frame: AudioFrame, kind: tuple[str, int, int]) -> None:
        name, rate, channels = self._kind = kind
        budget = self._limits.frames(rate, channels)
        if not self._first_rate:
            self._first_rate, self._budget = rate, budget
        self._block = block_frames(rate, channels)
        planes = channels if frame.format.is_planar else 1
        self._planes = [bytearray() for _ in range(planes)]
        self._frame_bytes = frame.format.bytes * channels // planes
        self._zero = b"\x80" if name.startswith("u8") else b"\0"  # unsigned samples are centred at 128

    def _take(self, frames: int) -> RawBlock:
        size = frames * self._frame_bytes
        taken = self._planes
        self._planes = [plane[size:] for plane in taken]  # at most one frame of the decoder
        for plane in taken:
            del plane[size:]
        self._frames -= frames
        return RawBlock(*self._kind, frames, taken)


def _kind(frame: AudioFrame) -> tuple[str, int, int]:
    return frame.format.name, frame.sample_rate, frame.layout.nb_channels


def decode_blocks(source: ByteSource, limits: DecodingLimits) -> Iterator[RawBlock]:
    """Decode an audio stream of a file: the default one, or else the first with a decoder. Links are joined.

    Args:
        source: the file.
        limits: how much audio may be decoded.

    Yields:
        Blocks of `block_frames` samples per channel, shorter at the end and before format, rate or channels change.

    Raises:
        NotDecodable: not audio, no audio stream, an unsupported codec, or rate or channels out of bounds.
        AudioEmpty: an audio stream without samples.
        AudioTooLong: more samples than the limits allow.
        AudioTruncated: much of the audio is damaged.
    """
    collector = _Collector(limits)
    links = [source.part(begin, end) for begin, end in find_links(source)]
    try:
        for link in links:
            try:
                container = av.open(link, mode="r", options=_OPTIONS, **_TAGS)
            except av.FFmpegError:
                if collector.total and link is links[-1] and link.size < _LEAST_LINK:
                    break
                raise
            with container:
                yield from _decode_stream(container, _choose_stream(container), link, collector)
    except av.FFmpegError as error:
        raise NotDecodable("The file is not audio in a supported format.") from error
    if not collector.total:
        raise AudioEmpty("The file contains no samples.")
    yield from collector.blocks(last=True)


def _choose_stream(container: InputContainer) -> AudioStream:
    if not container.streams.audio:
        raise NotDecodable("The file contains no audio stream.")
    # Contrary to its type, the name is missing in PyAV where FFmpeg has no decoder.
    names = DECODERS.split(",")
    usable = [stream for stream in container.streams.audio if getattr(stream.codec_context, "name", None) in names]
    if not usable:
        raise NotDecodable("The audio codec is not supported.")
    # MPEG-TS may announce a stream and send no packets of it: its rate is then unknown.
    known = [stream for stream in usable if stream.codec_context.sample_rate] or usable
    stream = next((stream for stream in known if stream.disposition & Disposition.default), known[0])
    stream.codec_context.thread_count = 1
    return stream


def _packets(container: InputContainer, stream: AudioStream, source: ByteSource) -> Iterator[Packet[AudioStream]]:
    """Read packets up to the end of the file, which may lie within the last one."""
    try:
        yield from container.demux(stream)
    except av.FFmpegError:
        if source.tell() < source.size:
            raise


def _decode_stream(
    container: InputContainer, stream: AudioStream, source: ByteSource, collector: _Collector
) -> Iterator[RawBlock]:
    # FFmpeg stamps the first page of FLAC in Ogg with 0, also if somebody joined a live stream there.
    flac_in_ogg = container.format.name == "ogg" and stream.codec_context.name == "flac"
    clock = clock_of(container.format.name, None if flac_in_ogg else container.start_time)
    first_page: int | None = None
    packets = damaged = 0
    for packet in _packets(container, stream, source):
        try:
            frames = packet.decode()
        except av.FFmpegError:
            # A recording may begin or end in the middle of a frame, and single damaged packets are accepted.
            damaged += 1
            if damaged > packets + 100:
                break
            continue
        packets += 1
        if first_page is None:
            first_page = packet.pos
        stamped = clock is not None and not (flac_in_ogg and packet.pos == first_page)
        for frame in frames:
            yield from collector.add(frame, clock.missing(frame) if clock and stamped else 0)
    if damaged > packets:
        raise NotDecodable("The file looks like audio, but most of it cannot be decoded.")
    if damaged > 2 + packets // 50:
        raise AudioTruncated(f"The audio is damaged: {damaged} of {packets + damaged} packets cannot be decoded.")
