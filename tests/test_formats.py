"""What a file's format does to its answer: from bytes to scores, on the embedded model."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from service.data import EXAMPLES
from service.inference.backends.onnx_backend import OnnxBackend
from service.model.store import find
from service.recognition.file import decode_clips
from service.recognition.options import Options
from service.recognition.scores import recognition
from service.results import SAMPLING_RATE, Floats
from tests.audio_samples import AMR, AMR_WB, CLIPS, FORMATS, Format, encode, encode_av, speech

RATES = (16_000, 22_050, 44_100, 48_000)
NARROW = ("wav-gsm", "wav-g726", "gsm")
LOSSLESS = [name for name, form in FORMATS.items() if form.correlation == 1]
LOSSY = [name for name in FORMATS if name not in LOSSLESS and name not in NARROW]


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnnxBackend]:
    stored = find("tiny", cache=tmp_path_factory.mktemp("cache"), offline=True)
    backend = OnnxBackend(stored.directory, stored.manifest, dtype="fp32", threads=1)
    yield backend
    backend.close()


def scores(backend: OnnxBackend, data: bytes) -> Floats:
    decoded = decode_clips(io.BytesIO(data), Options(), 30.0, 30.0)
    (output,) = backend.run(decoded.clips).clips
    return recognition(output, backend.info, granularity="utterance", embedding="none").scores


@cache
def reference(backend: OnnxBackend, channels: int, clip: int) -> Floats:
    return scores(backend, encode("wav-s16", speech(SAMPLING_RATE, channels, clip), SAMPLING_RATE))


def cases(form: Format, clips: range) -> list[tuple[int, int, int]]:
    rates = [rate for rate in RATES if form.rates is None or rate in form.rates]
    return [(rate, channels, clip) for rate in rates for channels in range(1, form.channels + 1) for clip in clips]


def difference(backend: OnnxBackend, name: str, rate: int, channels: int, clip: int) -> float:
    found = scores(backend, encode(name, speech(rate, channels, clip), rate))
    return float(np.abs(found - reference(backend, channels, clip)).max())


@pytest.mark.parametrize("name", LOSSLESS)
def test_lossless_formats_keep_the_scores(backend: OnnxBackend, name: str) -> None:
    differences = {case: difference(backend, name, *case) for case in cases(FORMATS[name], range(1))}
    assert max(differences.values()) < 0.02, differences


@pytest.mark.slow
@pytest.mark.parametrize("name", LOSSLESS)
def test_lossless_formats_keep_the_scores_of_every_clip(backend: OnnxBackend, name: str) -> None:
    differences = {case: difference(backend, name, *case) for case in cases(FORMATS[name], range(1, len(CLIPS)))}
    assert max(differences.values()) < 0.02, differences


@pytest.mark.slow
def test_lossy_formats_keep_the_label_of_most_clips(backend: OnnxBackend) -> None:
    kept = []
    for name in LOSSY:
        for rate, channels, clip in cases(FORMATS[name], range(len(CLIPS))):
            found = scores(backend, encode(name, speech(rate, channels, clip), rate))
            kept.append((name, rate, int(found.argmax()) == int(reference(backend, channels, clip).argmax())))
    assert len(kept) > 200
    assert sum(same for _, _, same in kept) >= 0.95 * len(kept), [case for case in kept if not case[2]]


@pytest.mark.parametrize("name", NARROW)
def test_telephone_formats_are_answered(backend: OnnxBackend, name: str) -> None:
    found = scores(backend, encode(name, speech(8_000), 8_000))
    assert found.sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("path", [AMR, AMR_WB], ids=lambda path: path.suffix)
def test_mobile_formats_are_answered(backend: OnnxBackend, path: Path) -> None:
    assert scores(backend, path.read_bytes()).sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("name", ["wav-alaw", "wav-ulaw"])
def test_g711_at_eight_kilohertz_is_answered(backend: OnnxBackend, name: str) -> None:
    assert scores(backend, encode(name, speech(8_000), 8_000)).sum() == pytest.approx(1, abs=1e-5)


def happy_with_size(size: int) -> bytes:
    """The example with another size of its samples, in its chunk and in RIFF."""
    data = bytearray((EXAMPLES / "happy.wav").read_bytes())
    struct.pack_into("<I", data, data.index(b"data") + 4, size)
    struct.pack_into("<I", data, 4, min(size + 36, 0xFFFFFFFF))
    return bytes(data)


@pytest.mark.parametrize("size", [10**9, 2 * 10**9, 0x7FFE0000, 0xFFFFFFFF])
def test_what_live_writers_declare_is_not_believed(backend: OnnxBackend, size: int) -> None:
    data = happy_with_size(size)
    assert np.array_equal(scores(backend, data), scores(backend, happy_with_size(99_158)))
    decoded = decode_clips(io.BytesIO(data), Options(), 30.0, 30.0)
    assert (round(decoded.duration, 6), decoded.truncated, decoded.unread_bytes) == (3.098688, False, 0)


def test_a_chunk_without_its_pad_byte(backend: OnnxBackend) -> None:
    happy = (EXAMPLES / "happy.wav").read_bytes()
    data = happy[:36] + b"LIST" + struct.pack("<I", 13) + b"INFOISFT" + struct.pack("<I", 1) + b"x" + happy[36:]
    found = scores(backend, data)
    assert np.array_equal(found, scores(backend, happy))
    assert found.max() == pytest.approx(0.712, abs=5e-4)


@pytest.mark.parametrize("codec", ["libopus", "libvorbis", "flac", "libspeex"])
def test_ogg_that_ends_within_a_page(codec: str) -> None:
    rate = 48_000 if codec == "libopus" else 16_000
    data = encode_av(np.tile(speech(rate), 2), rate, "ogg", codec)
    whole, cut = (decode_clips(io.BytesIO(part), Options(), 30.0, 30.0) for part in (data, data[: len(data) * 9 // 10]))
    assert not whole.truncated
    assert cut.truncated
    assert 0.5 < cut.duration < whole.duration
