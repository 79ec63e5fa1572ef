"""Speech in any format, for tests: bundled clips, and encoders made of soundfile and PyAV."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import av
import numpy as np
import soundfile
import soxr
from av.audio.stream import AudioStream

from service.results import SAMPLING_RATE, Floats

DATA = Path(__file__).parent / "data"
CLIPS = sorted((DATA / "emodb").glob("*.flac"))
"""Six clips of six speakers and six emotions, 16 kHz mono; see the README beside them."""

AMR = DATA / "03a02Nc.amr"
AMR_WB = DATA / "03a02Nc.awb"
"""The first clip in AMR and AMR wide-band, for which PyAV has no encoder, or only some versions have one."""


@dataclass(frozen=True, slots=True)
class Format:
    """How to encode, and what is left of the sound.

    Attributes:
        maker: the library that encodes.
        container: its name of the container.
        codec: its name of the codec.
        correlation: with the original at the best shift; 1 means every sample is the same but for rounding.
        padding: seconds by which encoder and decoder may change the length, in all.
        rates: sampling rates that the encoder takes; None for all.
        channels: the most channels it takes.
        bit_rate: bits a second, where the encoder has no good default.
    """

    maker: Literal["soundfile", "av"]
    container: str
    codec: str
    correlation: float = 1.0
    padding: float = 0.0
    rates: tuple[int, ...] | None = None
    channels: int = 2
    bit_rate: int | None = None


_OPUS_RATES = (8000, 12000, 16000, 24000, 48000)
FORMATS: dict[str, Format] = {
    "wav-u8": Format("soundfile", "WAV", "PCM_U8", correlation=0.99),
    "wav-s16": Format("soundfile", "WAV", "PCM_16"),
    "wav-s24": Format("soundfile", "WAV", "PCM_24"),
    "wav-s32": Format("soundfile", "WAV", "PCM_32"),
    "wav-f32": Format("soundfile", "WAV", "FLOAT"),
    "wav-f64": Format("soundfile", "WAV", "DOUBLE"),
    "wav-alaw": Format("soundfile", "WAV", "ALAW", correlation=0.999),
    "wav-ulaw": Format("soundfile", "WAV", "ULAW", correlation=0.999),
    "wav-ms-adpcm": Format("soundfile", "WAV", "MS_ADPCM", correlation=0.98, padding=0.07),
    "wav-ima-adpcm": Format("soundfile", "WAV", "IMA_ADPCM", correlation=0.98, padding=0.07),
    "wav-gsm": Format("soundfile", "WAV", "GSM610", correlation=0.8, padding=0.04, rates=(8000,), channels=1),
    "wav-g726": Format("av", "wav", "g726", correlation=0.95, padding=0.01, rates=(8000,), channels=1),
    "wavex": Format("soundfile", "WAVEX", "PCM_16"),
    "rf64": Format("soundfile", "RF64", "PCM_16"),
    "w64": Format("soundfile", "W64", "PCM_16"),
    "aiff": Format("soundfile", "AIFF", "PCM_16"),
    "au": Format("soundfile", "AU", "PCM_16"),
    "caf": Format("soundfile", "CAF", "PCM_16"),
    "caf-alac": Format("av", "caf", "alac", padding=0.26),  # FFmpeg 9 cuts the end of the last packet off twice
    "flac": Format("soundfile", "FLAC", "PCM_16"),
    "flac-24": Format("soundfile", "FLAC", "PCM_24"),
    "ogg-vorbis": Format("soundfile", "OGG", "VORBIS", correlation=0.9),
    "ogg-opus": Format("soundfile", "OGG", "OPUS", correlation=0.9, padding=0.03, rates=_OPUS_RATES),
    "ogg-flac": Format("av", "ogg", "flac"),
    "gsm": Format("soundfile", "RAW", "GSM610", correlation=0.8, padding=0.02, rates=(8000,), channels=1),
    "mp3": Format("av", "mp3", "libmp3lame", correlation=0.9),
    "m4a": Format("av", "ipod", "aac", correlation=0.9, padding=0.1),
    "m4a-alac": Format("av", "ipod", "alac"),
    "mp4": Format("av", "mp4", "aac", correlation=0.9, padding=0.1),
    "mov": Format("av", "mov", "pcm_s24le"),
    "aac": Format("av", "adts", "aac", correlation=0.9, padding=0.2),
    "mpegts": Format("av", "mpegts", "aac", correlation=0.9, padding=0.2),
    "webm": Format("av", "webm", "libopus", correlation=0.9, padding=0.03, rates=_OPUS_RATES),
    "matroska": Format("av", "matroska", "flac"),
    "3gp": Format("av", "3gp", "aac", correlation=0.9, padding=0.1),
    "wma": Format("av", "asf", "wmav2", correlation=0.9, padding=0.3, bit_rate=64000),
}


def speech(rate: int = SAMPLING_RATE, channels: int = 1, clip: int = 0, seconds: float | None = None) -> Floats:
    """Read a bundled clip.

    Args:
        rate: the sampling rate that it is resampled to, in Hz.
        channels: 1, or 2 for another clip at half the level in the second channel.
        clip: which of `CLIPS`.
        seconds: the length; the rest is cut off. None for the whole clip.

    Returns:
        float32 of shape (channel, time).
    """
    files = [CLIPS[(clip + channel) % len(CLIPS)] for channel in range(channels)]
    read = [soundfile.read(file, dtype="float32")[0] / (channel + 1) for channel, file in enumerate(files)]
    length = min(len(samples) for samples in read)
    samples = np.stack([samples[:length] for samples in read])
    if rate != SAMPLING_RATE:
        samples = soxr.resample(samples.T, SAMPLING_RATE, rate).T
    clipped: Floats = np.clip(samples, -0.99, 0.99)
    return clipped[:, : None if seconds is None else int(seconds * rate)]


def encode(name: str, samples: Floats, rate: int) -> bytes:
    """Encode float32 samples of shape (channel, time) in one of `FORMATS`."""
    form = FORMATS[name]
    if form.maker == "av":
        return encode_av(samples, rate, form.container, form.codec, form.bit_rate)
    return encode_soundfile(samples, rate, form.container, form.codec)


def encode_soundfile(samples: Floats, rate: int, container: str, codec: str) -> bytes:
    """Encode float32 samples of shape (channel, time) with libsndfile."""
    file = io.BytesIO()
    soundfile.write(file, samples.T, rate, format=container, subtype=codec)
    return file.getvalue()


def encode_av(samples: Floats, rate: int, container: str, codec: str, bit_rate: int | None = None) -> bytes:
    """Encode float32 samples of shape (channel, time) with FFmpeg."""
    file = io.BytesIO()
    layout = "mono" if len(samples) == 1 else "stereo"
    with av.open(file, "w", format=container) as output:
        stream = cast(AudioStream, output.add_stream(codec, rate=rate, layout=layout))
        if bit_rate:
            stream.bit_rate = bit_rate
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout=layout)
        frame.sample_rate = rate
        frame.pts = 0
        for part in (frame, None) if samples.size else (None,):
            output.mux(stream.encode(part))
    return file.getvalue()


def repacked(data: bytes, container: str) -> bytes:
    """Put the packets of a file into another container."""
    result = io.BytesIO()
    with av.open(io.BytesIO(data), "r") as source, av.open(result, "w", format=container) as target:
        stream = target.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(source.streams.audio[0]):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    return result.getvalue()
