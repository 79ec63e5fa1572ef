"""Decode with FFmpeg (PyAV) what libsndfile does not. Runs in a process of its own: see `service.preprocess.sandbox`.

The upload reaches FFmpeg as a nameless buffer. Demuxers and audio decoders are listed by name and no protocol is
allowed: a playlist, an SDP or an ffconcat script opens nothing, and no video decoder ever runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import av
from av.audio.frame import AudioFrame
from av.audio.plane import AudioPlane
from av.audio.stream import AudioStream
from av.container import InputContainer

from service.errors import AudioEmpty, AudioTruncated, NotDecodable
from service.preprocess.limits import frame_budget, too_long
from service.preprocess.source import ByteSource

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


@dataclass(slots=True)
class Decoded:
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

    def takes(self, frame: AudioFrame) -> bool:
        """Say whether `frame` continues these samples."""
        return (self.sample_format, self.sampling_rate, self.channels) == (
            frame.format.name,
            frame.sample_rate,
            frame.layout.nb_channels,
        )

    def append(self, frame: AudioFrame) -> None:
        """Add a frame's samples."""
        size = frame.samples * frame.format.bytes * (self.channels if len(self.planes) == 1 else 1)
        # Not `frame.planes`, which from eight channels on reads past the last plane: PyAV 19 then raises.
        for index, plane in enumerate(self.planes):
            plane += memoryview(AudioPlane(frame, index))[:size]
        self.frames += frame.samples


def decode(source: ByteSource, max_duration: float) -> Decoded:
    """Decode the first audio stream.

    Args:
        source: the file.
        max_duration: the longest audio taken, in seconds.

    Raises:
        NotDecodable: not audio, no audio stream, an unsupported codec, or rate and channels out of bounds.
        AudioEmpty: an audio stream without samples.
        AudioTooLong: more seconds, or more samples over all channels, than are taken.
        AudioTruncated: much of the audio is damaged.
    """
    try:
        with av.open(source, mode="r", options=_OPTIONS, **_TAGS) as container:
            return _decode_stream(container, _first_audio_stream(container), max_duration)
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


def _decode_stream(container: InputContainer, stream: AudioStream, max_duration: float) -> Decoded:
    decoded: Decoded | None = None
    budget = packets = damaged = 0
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
            if decoded is None:
                channels = frame.layout.nb_channels
                budget = frame_budget(frame.sample_rate, channels, max_duration)
                planes = [bytearray() for _ in range(channels if frame.format.is_planar else 1)]
                decoded = Decoded(frame.format.name, frame.sample_rate, channels, 0, planes)
            if not decoded.takes(frame):
                raise NotDecodable("The audio changes its sampling rate or its channels on the way.")
            decoded.append(frame)
            if decoded.frames > budget:
                raise too_long(decoded.sampling_rate, decoded.channels, max_duration)
    if damaged > packets:
        raise NotDecodable("The bytes look like audio, but most of them cannot be decoded.")
    if decoded is None or not decoded.frames:
        raise AudioEmpty("The file holds no samples.")
    if damaged > 2 + packets // 50:
        raise AudioTruncated(f"The audio is damaged: {damaged} of {packets + damaged} packets cannot be decoded.")
    return decoded
