"""Decoding of samples, and the buffer of the latest ones."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from service.api.stream.messages import Start
from service.errors import AudioNotFinite, InvalidMessage
from service.preprocess.clips import make_clips
from service.preprocess.decode import decode
from service.recognition.live.samples import SampleBuffer, decode_samples


def start(**members: Any) -> Start:
    return Start.model_validate({"type": "start", "sampling_rate": 8000, "encoding": "s16le", **members})


@pytest.mark.parametrize("select", ["mix", "split", 1])
@pytest.mark.parametrize(("encoding", "subtype"), [("s16le", "PCM_16"), ("f32le", "FLOAT")])
def test_samples_are_those_of_a_file(select: str | int, encoding: str, subtype: str) -> None:
    rng = np.random.default_rng(0)
    values: Any = rng.integers(-32768, 32768, (1000, 3)).astype("<i2")
    if encoding == "f32le":
        values = rng.uniform(-1.5, 1.5, (1000, 3)).astype("<f4")
    file = io.BytesIO()
    soundfile.write(file, values, 8000, format="WAV", subtype=subtype)
    waveform = decode(file.getvalue(), max_duration=10)
    # All channels of a mix are kept, since their mean may cancel out.
    kept: Any = "split" if select == "mix" else select
    clips, _ = make_clips(waveform, channels=kept, start=None, end=None, trim=False, frame_embeddings=False)
    samples = decode_samples(values.tobytes(), start(encoding=encoding, channels=3, select=select))
    assert samples.dtype == np.float32
    assert np.array_equal(samples, np.stack([clip.samples for clip in clips]))


@pytest.mark.parametrize(("encoding", "channels", "size"), [("s16le", 1, 3), ("s16le", 2, 6), ("f32le", 2, 12)])
def test_incomplete_samples_are_an_error(encoding: str, channels: int, size: int) -> None:
    with pytest.raises(InvalidMessage, match=f"{size} bytes does not hold whole samples"):
        decode_samples(bytes(size), start(encoding=encoding, channels=channels))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30])
@pytest.mark.parametrize("select", ["mix", "split"])
def test_samples_that_are_not_finite_are_an_error(bad: float, select: str) -> None:
    values = np.zeros((10, 2), "<f4")
    values[7, 1] = bad
    with pytest.raises(AudioNotFinite):
        decode_samples(values.tobytes(), start(encoding="f32le", channels=2, select=select))


def test_channels_that_are_not_selected_are_not_checked() -> None:
    values = np.full((10, 2), np.nan, "<f4")
    values[:, 1] = 0.5
    assert (decode_samples(values.tobytes(), start(encoding="f32le", channels=2, select=1)) == 0.5).all()


@pytest.mark.parametrize(("select", "channels"), [("mix", 2), ("split", 2), (1, 1)])
def test_an_empty_message_has_no_samples(select: str | int, channels: int) -> None:
    assert decode_samples(b"", start(channels=2, select=select)).shape == (channels, 0)


@given(pushes=st.lists(st.tuples(st.integers(0, 50), st.integers(0, 60)), max_size=30))
@settings(deadline=None, max_examples=200)
def test_the_buffer_has_all_samples_that_were_not_dropped(pushes: list[tuple[int, int]]) -> None:
    whole = np.stack([np.arange(2000), -np.arange(2000)]).astype(np.float32)
    buffer = SampleBuffer(2)
    for size, keep in pushes:
        buffer.append(whole[:, buffer.total : buffer.total + size])
        first = buffer.first
        assert np.array_equal(buffer.cut(first, buffer.total), whole[:, first : buffer.total])
        buffer.drop(buffer.total - keep)
        assert buffer.first == max(first, buffer.total - keep, 0)


def test_the_memory_of_the_buffer_is_limited() -> None:
    buffer = SampleBuffer(1)
    for _ in range(1000):
        buffer.append(np.zeros((1, 160), np.float32))
        buffer.drop(buffer.total - 4800)
    assert buffer._block.shape[1] < 4 * 4800
    buffer.append(np.zeros((1, 500_000), np.float32))
    for _ in range(100):
        buffer.drop(buffer.total - 4800)
        buffer.append(np.zeros((1, 160), np.float32))
    assert buffer._block.shape[1] < 9 * 4800, "the memory of a large message is freed"


def test_dropped_samples_cannot_be_read() -> None:
    buffer = SampleBuffer(1)
    buffer.append(np.zeros((1, 100), np.float32))
    buffer.drop(50)
    for first, last in ((49, 60), (60, 101), (70, 60)):
        with pytest.raises(ValueError, match="are not among 50 to 100"):
            buffer.cut(first, last)
