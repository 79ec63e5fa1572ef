"""Recordings that are read in threads: closed once, and not while a step is running."""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from service.errors import Draining, NotDecodable
from service.recognition import recording
from service.recognition.options import parse_options
from service.recognition.recording import Recording, RecordingReader
from service.results import ChannelUtterance
from tests.api.sounds import call
from tests.inference.running import until

SOUND = call(30.0, [(1.0, 4.0), (12.0, 16.0), (22.0, 25.0)])
SEGMENTS = parse_options([("granularity", "segment")])


class SlowRecording(Recording):
    """A recording whose steps wait for `may_go`; `closed` counts the calls of `close`."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, SEGMENTS, 60.0)
        self.may_go, self.stepping = threading.Event(), threading.Event()
        self.closed: int = 0

    def step(self) -> list[ChannelUtterance] | None:
        self.stepping.set()
        self.may_go.wait(10)
        assert not self.closed
        found = super().step()
        return None if found is None else list(found)

    def close(self) -> None:
        self.closed += 1
        super().close()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


@pytest.fixture
def file() -> io.BytesIO:
    return io.BytesIO(SOUND)


@pytest.fixture
async def slow(file: io.BytesIO, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SlowRecording]:
    """The recording that every reader opens."""
    slow = SlowRecording(file)
    monkeypatch.setattr(recording, "Recording", lambda *_: slow)
    yield slow
    slow.may_go.set()


async def test_all_steps(pool: ThreadPoolExecutor, file: io.BytesIO) -> None:
    reader = RecordingReader(pool, file, SEGMENTS, 60.0)
    found: list[ChannelUtterance] = []
    while (step := await reader.step()) is not None:
        found += step
    assert [round(piece.utterance.start) for piece in found] == [1, 12, 22]
    assert reader.recording.duration == 30
    assert reader.seconds > 0
    assert not file.closed
    reader.close()
    await until(lambda: file.closed)


async def test_the_file_stays_open_until_the_running_step_ends(
    pool: ThreadPoolExecutor, file: io.BytesIO, slow: SlowRecording
) -> None:
    reader = RecordingReader(pool, file, SEGMENTS, 60.0)
    step = asyncio.create_task(reader.step())
    await until(slow.stepping.is_set)
    step.cancel()
    reader.close()
    await asyncio.sleep(0.05)
    assert slow.closed < 1
    assert not file.closed
    slow.may_go.set()
    await until(lambda: file.closed)
    assert slow.closed == 1


async def test_between_steps_the_file_is_closed_at_once(
    pool: ThreadPoolExecutor, file: io.BytesIO, slow: SlowRecording
) -> None:
    reader = RecordingReader(pool, file, SEGMENTS, 60.0)
    slow.may_go.set()
    await reader.step()
    reader.close()
    await until(lambda: file.closed)
    assert slow.closed == 1


async def test_a_file_that_cannot_be_opened(pool: ThreadPoolExecutor) -> None:
    file = io.BytesIO(b"no audio")
    reader = RecordingReader(pool, file, SEGMENTS, 60.0)
    with pytest.raises(NotDecodable):
        await reader.step()
    with pytest.raises(RuntimeError):
        _ = reader.recording
    reader.close()
    await until(lambda: file.closed)


async def test_a_pool_that_has_been_shut_down(file: io.BytesIO, slow: SlowRecording) -> None:
    pool = ThreadPoolExecutor(1)
    reader = RecordingReader(pool, file, SEGMENTS, 60.0)
    slow.may_go.set()
    await reader.step()
    pool.shutdown()
    with pytest.raises(Draining):
        await reader.step()
    reader.close()
    assert file.closed
    assert slow.closed == 1


async def test_a_pool_that_drops_the_job_which_closes_the_file(file: io.BytesIO, slow: SlowRecording) -> None:
    pool = ThreadPoolExecutor(1)
    reader = RecordingReader(pool, file, SEGMENTS, 60.0)
    slow.may_go.set()
    await reader.step()
    busy = threading.Event()
    pool.submit(busy.wait, 10)
    reader.close()
    pool.shutdown(wait=False, cancel_futures=True)
    await until(lambda: file.closed)
    assert slow.closed == 1
    busy.set()
