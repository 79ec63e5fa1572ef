"""Decoding every format to the right samples."""

from __future__ import annotations

import io
import struct
import tempfile
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import soxr

from service.errors import AudioEmpty, AudioTooLong, NotDecodable, ServiceError
from service.preprocess import decoding_limits
from service.preprocess.decode import decode
from service.results import Floats
from tests.audio_samples import AMR, AMR_WB, FORMATS, encode, encode_av, repacked, speech

ROUNDED = 2**-14
"""Bound for the error of 16 bits: half a step of 2**-15 by rounding, and up to a whole step if the encoder scales by
32,767 and the decoder by 32,768."""


def cases() -> list[tuple[str, int, int]]:
    """Each format at each rate and number of channels that its encoder takes."""
    return [
        (name, rate, channels)
        for name, form in FORMATS.items()
        for rate in (8_000, 16_000, 22_050, 44_100, 48_000)
        if (form.rates is None and rate != 8_000) or (form.rates is not None and rate in form.rates)
        for channels in range(1, form.channels + 1)
    ]


def similarity(one: Floats, other: Floats) -> float:
    """Correlation of two waveforms of shape (time,) at the best shift."""
    size = 1 << (len(one) + len(other)).bit_length()
    products = np.fft.irfft(np.fft.rfft(one, size).conj() * np.fft.rfft(other, size), size)
    return float(products.max() / np.sqrt(np.dot(one, one) * np.dot(other, other)))


def decibels(samples: Floats) -> float:
    """Level in decibels."""
    return float(10 * np.log10(np.mean(np.square(samples))))


@pytest.mark.parametrize(("name", "rate", "channels"), cases())
def test_format(name: str, rate: int, channels: int) -> None:
    form = FORMATS[name]
    original = speech(rate, channels)
    waveform = decode(encode(name, original, rate), max_duration=10)
    samples = waveform.samples
    assert samples.dtype == np.float32
    assert samples.shape[0] == channels
    if name in ("webm", "ogg-opus"):  # Opus in FFmpeg always comes at 48 kHz
        assert waveform.sampling_rate == 48_000
        samples = soxr.resample(samples.T, 48_000, rate).T
    else:
        assert waveform.sampling_rate == rate
    if not form.padding:
        assert samples.shape == original.shape
    assert abs(samples.shape[1] - original.shape[1]) / rate <= form.padding
    # Channel by channel: the second differs and is quieter, so mixed, swapped or scaled channels show.
    for before, after in zip(original, samples, strict=True):
        # Rounding to 16 bits changes no level by 0.1 dB; lossy codecs and padding may by more.
        assert abs(decibels(after) - decibels(before)) < (0.1 if form.correlation == 1 and not form.padding else 0.6)
        assert similarity(before, after) > form.correlation - (1e-2 if form.padding else 1e-4)
    if form.correlation == 1:
        shorter = min(samples.shape[1], original.shape[1])
        assert np.abs(samples[:, :shorter] - original[:, :shorter]).max() < ROUNDED


@pytest.mark.parametrize(("file", "rate"), [(AMR, 8_000), (AMR_WB, 16_000)])
@pytest.mark.parametrize("container", [None, "3gp"])
def test_amr(file: Path, rate: int, container: str | None) -> None:
    original = speech(rate)
    data = file.read_bytes()
    waveform = decode(repacked(data, container) if container else data, max_duration=10)
    assert waveform.sampling_rate == rate
    assert abs(waveform.duration - original.shape[1] / rate) < 0.04  # two frames of the codec
    assert abs(decibels(waveform.samples) - decibels(original)) < 1
    assert similarity(original[0], waveform.samples[0]) > (0.7 if rate == 8_000 else 0.85)


@pytest.mark.parametrize(
    ("container", "codec", "step"),
    [("wav", "pcm_u8", 2**-7), ("mov", "pcm_s16be", 2**-15), ("mov", "pcm_f32le", 0), ("mov", "pcm_f64le", 0)],
)
def test_ffmpeg_sample_formats_have_the_scale_of_libsndfile(container: str, codec: str, step: float) -> None:
    ramp = np.linspace(-1, 0.99, 2000, dtype=np.float32)[None]
    samples = decode(encode_av(ramp, 16_000, container, codec), max_duration=10).samples
    assert np.abs(samples - ramp).max() <= step


def test_float_samples_may_exceed_full_scale() -> None:
    loud = speech() * 4
    assert np.array_equal(decode(encode("wav-f32", loud, 16_000), max_duration=10).samples, loud)


@pytest.mark.parametrize("channels", [3, 6, 8, 16, 32])
def test_many_channels(channels: int) -> None:
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, (1600, channels)).astype(np.float32)
    file = io.BytesIO()
    soundfile.write(file, samples, 16_000, format="WAV", subtype="FLOAT")
    assert np.array_equal(decode(file.getvalue(), max_duration=10).samples, samples.T)


@pytest.mark.parametrize("channels", [8, 9, 16, 32])
def test_many_channels_in_planes(channels: int) -> None:
    """PyAV lists too many planes for eight or more channels."""
    levels = np.linspace(0.1, 0.9, channels, dtype=np.float32)
    tone = np.sin(2 * np.pi * 440 * np.arange(48_000) / 48_000, dtype=np.float64).astype(np.float32)
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as output:
        options = {"mapping_family": "255", "b": f"{64_000 * channels}"}
        layout = f"{channels} channels"
        stream = output.add_stream("libopus", rate=48_000, layout=layout, options=options)
        interleaved = np.outer(tone, levels).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(interleaved, format="flt", layout=layout)
        frame.sample_rate = 48_000
        for part in (frame, None):
            output.mux(stream.encode(part))
    samples = decode(file.getvalue(), max_duration=10).samples
    assert samples.shape[0] == channels
    # Opus is lossy, so levels are only similar.
    assert np.allclose(np.abs(samples[:, 9_600:38_400]).max(axis=1), levels, rtol=0.1)


@pytest.mark.parametrize(("rate", "channels"), [(999, 1), (768_001, 1), (16_000, 33)])
def test_rate_and_channels_out_of_bounds(rate: int, channels: int) -> None:
    file = io.BytesIO()
    soundfile.write(file, np.zeros((800, channels)), rate, format="WAV", subtype="PCM_16")
    with pytest.raises(NotDecodable, match=r"supported are 1"):
        decode(file.getvalue(), max_duration=10)


@pytest.mark.parametrize("rate", [1_000, 11_025, 96_000, 192_000, 768_000])
def test_odd_rates(rate: int) -> None:
    waveform = decode(encode("wav-s16", speech(rate, seconds=0.1), rate), max_duration=10)
    assert (waveform.sampling_rate, waveform.samples.shape) == (rate, (1, rate // 10))


@pytest.mark.parametrize("name", ["wav-s16", "mp3"])
@pytest.mark.parametrize("kind", ["bytes", "bytearray", "memoryview", "memory file", "spooled file"])
def test_uploads_in_memory_and_on_disk(name: str, kind: str) -> None:
    data = encode(name, speech(), 16_000)
    expected = decode(data, max_duration=10).samples
    if kind == "spooled file":
        with tempfile.SpooledTemporaryFile(max_size=1000) as file:
            file.write(data)
            assert np.array_equal(decode(file, max_duration=10).samples, expected)
            file.seek(0)
            assert file.read() == data
    else:
        given = {"bytearray": bytearray, "memoryview": memoryview, "memory file": io.BytesIO}.get(kind, bytes)(data)
        assert np.array_equal(decode(given, max_duration=10).samples, expected)


@pytest.mark.parametrize("name", ["wav-s16", "mp3"])
def test_upload_that_cannot_be_read_back(name: str) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if size is None or size < 0 or self.tell() + size > 1000:
                raise OSError("disk is gone")
            return super().read(size)

    with pytest.raises(ServiceError, match="read back") as caught:
        decode(Broken(encode(name, speech(), 16_000)), max_duration=10)
    assert caught.value.code == "internal_error"


@pytest.mark.parametrize("size", [0x0, 0x7FFFF000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
@pytest.mark.parametrize("name", ["wav-s16", "wav-f32"])
def test_streamed_wav_header(name: str, size: int) -> None:
    """Headers of programs that write to a pipe, before they know the length."""
    data = bytearray(encode(name, speech(), 16_000))
    place = data.index(b"data") + 4
    data[4:8] = data[place : place + 4] = struct.pack("<I", size)
    samples = decode(data, max_duration=10).samples
    # A file of size 0 is decoded by FFmpeg, which also decodes the chunks after the samples.
    assert samples.shape[1] - speech().shape[1] in range(100 if size == 0 else 1)
    assert np.abs(samples[:, : speech().shape[1]] - speech()).max() < ROUNDED


def test_flac_without_a_declared_length() -> None:
    data = bytearray(encode("flac", speech(), 16_000))
    info = data.index(b"fLaC") + 8  # STREAMINFO; the length is the low half of byte 13 and the next four
    data[info + 13] &= 0xF0
    data[info + 14 : info + 18] = bytes(4)
    assert np.abs(decode(data, max_duration=10).samples - speech()).max() < ROUNDED


def test_wav_with_chunks_around_the_samples() -> None:
    data = encode("wav-s16", speech(), 16_000)
    chunk = b"LIST" + struct.pack("<I", 7) + b"INFOabc\0"
    body = data[12:36] + chunk + data[36:] + chunk
    waveform = decode(b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WAVE" + body, max_duration=10)
    assert np.abs(waveform.samples - speech()).max() < ROUNDED


def test_tags_and_pictures_are_ignored() -> None:
    mp3 = encode("mp3", speech(), 16_000)
    picture = b"APIC" + struct.pack(">I", 100) + bytes(2) + b"\0image/png\0\3\0" + b"\x89PNG\r\n\x1a\n" + bytes(79)
    tag = b"ID3\3\0\0" + bytes([0, 0, 0, len(picture)]) + picture
    assert np.array_equal(
        decode(tag + mp3 + b"TAG" + bytes(125), max_duration=10).samples, decode(mp3, max_duration=10).samples
    )


def test_text_in_old_encodings_is_ignored() -> None:
    file = io.BytesIO(encode("m4a", speech(), 16_000))
    data = file.getvalue().replace(b"Lavf", b"\xff\xe9\xfc\xdf")
    assert data != file.getvalue()
    assert decode(data, max_duration=10).duration > 1


@pytest.mark.parametrize("name", ["wav-s16", "flac", "ogg-opus", "mp3", "m4a", "webm", "gsm"])
def test_longest_duration(name: str) -> None:
    rate = 8_000 if name == "gsm" else 16_000
    data = encode(name, speech(rate, seconds=1), rate)
    assert decode(data, max_duration=1.2).duration == pytest.approx(1, abs=0.1)  # the padding of codecs
    with pytest.raises(AudioTooLong, match=r"longer than 0\.5 s"):
        decode(data, max_duration=0.5)


@pytest.mark.parametrize("name", ["wav-s16", "mov"])
def test_exactly_the_longest_duration(name: str) -> None:
    data = encode(name, speech(seconds=1), 16_000)
    assert decode(data, max_duration=1).duration == 1
    with pytest.raises(AudioTooLong):
        decode(data, max_duration=1 - 1 / 16_000)


def test_most_samples_over_all_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding_limits, "MAX_VALUES", 40_000)
    assert decode(encode("wav-s16", speech(seconds=1), 16_000), max_duration=10).duration == 1
    with pytest.raises(AudioTooLong, match=r"2 channels at 48000 Hz may last at most 0\.417 s"):
        decode(encode("wav-s16", speech(48_000, channels=2, seconds=1), 48_000), max_duration=10)


@pytest.mark.parametrize("name", ["wav-s16", "w64", "aiff", "au", "flac", "mp3", "m4a", "webm"])
def test_no_samples(name: str) -> None:
    data = encode(name, np.zeros((1, 0), np.float32), 16_000)
    with pytest.raises((AudioEmpty, NotDecodable)):
        decode(data, max_duration=10)


def test_empty_wav() -> None:
    with pytest.raises(AudioEmpty):
        decode(encode("wav-s16", np.zeros((1, 0), np.float32), 16_000), max_duration=10)


def test_no_bytes() -> None:
    with pytest.raises(AudioEmpty):
        decode(b"", max_duration=10)


@pytest.mark.parametrize(("head", "name"), [(b"\x1f\x8b\x08\x00", "gzip"), (b"PK\x03\x04", "ZIP")])
def test_compressed_files_are_named(head: bytes, name: str) -> None:
    with pytest.raises(NotDecodable, match=name):
        decode(head + encode("wav-s16", speech(seconds=0.1), 16_000), max_duration=30)
