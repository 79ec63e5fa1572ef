"""Decoding block by block: the samples and errors of whole files, and no processes left behind."""

from __future__ import annotations

import io
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from threading import BoundedSemaphore

import numpy as np
import pytest

from service.errors import AudioEmpty, AudioTooLong, AudioTruncated, NotDecodable, QueueFull, ServiceError
from service.preprocess.decode import decode
from service.preprocess.decoding_limits import BLOCK_SECONDS, block_frames
from service.preprocess.ffmpeg import child, sandbox
from service.preprocess.ffmpeg.chunked_file import CHUNK
from service.preprocess.reader import AudioReader, open_reader
from service.results import Floats
from tests.audio_samples import AMR, AMR_WB, FORMATS, encode, speech
from tests.preprocess import bombs
from tests.preprocess.children import children, state, ticks
from tests.preprocess.test_decode import ROUNDED


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """No children of other tests before, and none left after."""
    sandbox.close()
    yield
    sandbox.close()
    assert not children()


def repeated(seconds: float, rate: int = 8_000, channels: int = 1) -> Floats:
    """Speech of so many seconds: a clip repeated."""
    once = speech(rate, channels)
    return np.tile(once, int(seconds * rate / once.shape[1]) + 1)[:, : int(seconds * rate)]


def amr(file: Path, times: int) -> bytes:
    """A file of AMR whose frames are repeated."""
    data = file.read_bytes()
    head = data.index(b"\n") + 1
    return data[:head] + times * data[head:]


@cache
def long_file(name: str, seconds: float = 11.3) -> bytes:
    """A bit more than one block in any format."""
    if name in ("amr", "amr-wb"):
        return amr(AMR if name == "amr" else AMR_WB, 8)
    return encode(name, repeated(seconds, channels=FORMATS[name].channels), 8_000)


def joined(reader: AudioReader) -> Floats:
    """All samples of a reader."""
    return np.concatenate(list(reader.blocks()), axis=1)


@pytest.mark.parametrize("name", [*FORMATS, "amr", "amr-wb"])
def test_the_same_samples_as_of_the_whole_file(name: str) -> None:
    data = long_file(name)
    expected = decode(data, max_duration=60)
    with open_reader(data, max_duration=60) as reader:
        assert (reader.sampling_rate, reader.channels) == (expected.sampling_rate, expected.channels)
        blocks = list(reader.blocks())
    assert all(block.dtype == np.float32 and block.shape[1] > 0 for block in blocks)
    assert all(block.shape[1] == BLOCK_SECONDS * expected.sampling_rate for block in blocks[:-1])
    assert len(blocks) == 2
    assert np.array_equal(np.concatenate(blocks, axis=1), expected.samples)


@pytest.mark.parametrize("name", ["wav-f32", "mov"])
@pytest.mark.parametrize("seconds", [0.01, 10, 20, 20.000125])
def test_lengths_around_whole_blocks(name: str, seconds: float) -> None:
    samples = repeated(seconds)
    assert samples.shape[1] == round(seconds * 8_000)
    with open_reader(encode(name, samples, 8_000), max_duration=20.000125) as reader:
        assert np.abs(joined(reader) - samples).max() < ROUNDED


def test_blocks_of_many_channels_at_high_rates_are_shorter() -> None:
    assert block_frames(48_000, 2) == 480_000
    assert block_frames(768_000, 32) * 32 == 1 << 20


@pytest.mark.parametrize("name", ["wav-s16", "mp3"])
def test_uploads_on_disk_and_in_memory(name: str) -> None:
    data = encode(name, speech(), 16_000)
    expected = decode(data, max_duration=10).samples
    with tempfile.SpooledTemporaryFile(max_size=1000) as file:
        file.write(data)
        assert np.array_equal(joined(open_reader(file, max_duration=10)), expected)
    assert np.array_equal(joined(open_reader(memoryview(data), max_duration=10)), expected)


@pytest.mark.parametrize("name", ["wav-s16", "ogg-vorbis", "mp3"])
def test_blocks_may_be_taken_in_any_thread(name: str) -> None:
    data = long_file(name)
    with open_reader(data, max_duration=60) as reader, ThreadPoolExecutor(4) as pool:
        blocks = reader.blocks()
        taken = [pool.submit(next, blocks).result() for _ in range(2)]
        assert pool.submit(next, blocks, None).result() is None
    assert np.array_equal(np.concatenate(taken, axis=1), decode(data, max_duration=60).samples)


@pytest.mark.parametrize("name", ["wav-s16", "mp3"])
def test_a_closed_reader_raises(name: str) -> None:
    with open_reader(long_file(name), max_duration=60) as reader:
        blocks = reader.blocks()
        next(blocks)
    reader.close()
    with pytest.raises(ValueError, match="closed"):
        next(blocks)
    with pytest.raises(ValueError, match="closed"):
        next(reader.blocks())


@pytest.mark.parametrize("name", ["flac", "ogg-vorbis", "ogg-opus", "mp3", "m4a"])
def test_longest_duration(name: str) -> None:
    data = long_file(name)
    with pytest.raises(AudioTooLong, match=r"longer than 10\.5 s"):
        joined(open_reader(data, max_duration=10.5))
    assert joined(open_reader(data, max_duration=12)).shape[1] > 0


def test_a_file_that_declares_too_much_is_refused_before_it_is_decoded() -> None:
    with pytest.raises(AudioTooLong):
        open_reader(long_file("flac"), max_duration=11)


def test_more_samples_than_fit_into_memory_at_once() -> None:
    """A whole file may have 2**26 samples; blocks may be more in all."""
    data = bombs.long_flac(4_200)  # 2**26 samples are 4,194 s
    with pytest.raises(AudioTooLong):
        decode(data, max_duration=5_000)
    assert sum(block.shape[1] for block in open_reader(data, max_duration=5_000).blocks()) == 4_200 * 16_000


@pytest.mark.parametrize("name", ["flac", "ogg-vorbis", "m4a"])
def test_damage_is_detected_in_its_block(name: str) -> None:
    data = bytearray(long_file(name, 21.3))
    start = int(len(data) * 0.7)
    data[start : start + len(data) // 5] = np.random.default_rng(0).bytes(len(data) // 5)
    with open_reader(data, max_duration=60) as reader:
        blocks = reader.blocks()
        assert next(blocks).shape[1] == BLOCK_SECONDS * 8_000
        with pytest.raises((AudioTruncated, NotDecodable)):
            list(blocks)


@pytest.mark.parametrize("name", ["wav-s16", "flac", "mp3", "ogg-vorbis", "webm"])
def test_files_that_end_early(name: str) -> None:
    data = long_file(name, 21.3)
    cut = data[: len(data) * 7 // 10]
    reader = open_reader(cut, max_duration=60)
    samples = joined(reader)
    assert reader.truncated
    assert samples.shape[1] / reader.sampling_rate == pytest.approx(0.7 * 21.3, abs=1.5)
    assert np.array_equal(samples, decode(cut, max_duration=60).samples)
    whole = open_reader(data, max_duration=60)
    assert joined(whole).shape[1] > samples.shape[1]
    assert not whole.truncated


def test_files_without_audio() -> None:
    for data in (b"", encode("wav-s16", np.zeros((1, 0), np.float32), 8_000)):
        with pytest.raises(AudioEmpty):
            open_reader(data, max_duration=10)
    with pytest.raises(NotDecodable):
        open_reader(b"This is not audio.", max_duration=10)


@pytest.mark.parametrize("name", ["wav-s16", "mov"])
def test_an_upload_that_cannot_be_read_back_any_more(name: str) -> None:
    class Failing(io.BytesIO):
        broken = False

        def read(self, size: int | None = -1, /) -> bytes:
            if self.broken:
                raise OSError("disk is gone")
            return super().read(size)

    file = Failing(long_file(name, 21.3))
    with open_reader(file, max_duration=60) as reader:
        blocks = reader.blocks()
        next(blocks)
        file.broken = True
        with pytest.raises(ServiceError, match="read back") as caught:
            list(blocks)
    assert caught.value.code == "internal_error"


def test_an_abandoned_reader_leaves_no_process() -> None:
    data = bombs.long_opus(600, "webm")
    with open_reader(data, max_duration=600) as reader:
        blocks = reader.blocks()
        next(blocks)
        assert len(children()) == 1
    assert not children()
    blocks = open_reader(data, max_duration=600).blocks()
    next(blocks)
    assert len(children()) == 1
    del blocks
    assert not children()


def test_a_finished_reader_leaves_its_process_to_others() -> None:
    sandbox.warm_up()
    before = children()
    joined(open_reader(long_file("mp3"), max_duration=60))
    with pytest.raises(NotDecodable):
        open_reader(b"This is not audio.", max_duration=10)
    decode(long_file("mp3"), max_duration=60)
    assert children() == before


def test_no_more_processes_are_kept_than_files_are_decoded_at_once() -> None:
    readers = [open_reader(long_file("mp3"), max_duration=60) for _ in range(sandbox.PROCESSES + 1)]
    assert len(children()) == sandbox.PROCESSES + 1
    for reader in readers:
        joined(reader)
    assert len(children()) == sandbox.PROCESSES


def test_the_number_of_readers_is_limited_separately_from_whole_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "_readers", BoundedSemaphore(2))
    monkeypatch.setattr(sandbox, "_slots", BoundedSemaphore(1))
    data = long_file("mp3")
    with open_reader(data, max_duration=60) as one, open_reader(data, max_duration=60):
        with pytest.raises(QueueFull):
            open_reader(data, max_duration=60)
        assert decode(data, max_duration=60).duration > 11  # does not wait
        assert joined(open_reader(long_file("flac"), max_duration=60)).shape[1] > 0  # needs no process
        one.close()
        with open_reader(data, max_duration=60):
            pass


def test_decoding_stops_if_the_file_is_read_too_often(monkeypatch: pytest.MonkeyPatch) -> None:
    data = long_file("mov", 21.3)
    assert len(data) > 2 * CHUNK
    monkeypatch.setattr(child, "_ALLOWANCE", CHUNK)
    monkeypatch.setattr(child, "_MOST_READS", 0)
    with pytest.raises(NotDecodable, match="broke the decoder"):
        joined(open_reader(data, max_duration=60))


def test_a_child_decodes_at_most_one_block_ahead() -> None:
    """While it waits, it uses no processor time."""
    with open_reader(bombs.long_opus(3600, "ogg"), max_duration=3600) as reader:
        blocks = reader.blocks()
        next(blocks)
        (process,) = children()
        while state(process) != "S":
            time.sleep(0.01)
        used = ticks(process)
        time.sleep(0.5)
        assert ticks(process) == used
        assert next(blocks).shape[1] == 480_000
