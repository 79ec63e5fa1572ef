"""Children that crash, are killed, stop, or send what they should not: the service waits for none of them for long."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from service.errors import AudioError, DecoderUnavailable, NotDecodable, ServiceError
from service.preprocess.decode import decode
from service.preprocess.ffmpeg import child, sandbox
from service.preprocess.reader import open_reader
from service.results import Floats
from tests.audio_samples import encode, speech
from tests.preprocess.children import children

READY = """echo '{"ready": true, "filtered": true}'"""


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No children of other tests before, and none left after. Children that have stopped are noticed soon."""
    monkeypatch.setattr(child, "_STALL_SECONDS", 0.3)
    sandbox.close()
    yield
    sandbox.close()
    assert not children()


@pytest.fixture
def short() -> bytes:
    return encode("mp3", speech(), 16_000)


@pytest.fixture
def long() -> tuple[bytes, Floats]:
    """A file of several blocks, which fill the pipe, and its samples."""
    data = encode("mp3", np.tile(speech(8_000), 25), 8_000)
    samples = decode(data, max_duration=60).samples
    assert samples.shape[1] > 30 * 8_000
    sandbox.close()
    return data, samples


class Imitation:
    """A shell script in place of the child."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._starts = path.with_suffix(".starts")

    def write(self, *lines: str) -> None:
        self.path.write_text("\n".join(["#!/bin/sh", f"echo >> {self._starts}", *lines, ""]))
        self.path.chmod(0o700)

    @property
    def starts(self) -> int:
        """How many children were started."""
        return len(self._starts.read_text())


@pytest.fixture
def imitation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Imitation:
    made = Imitation(tmp_path / "child")
    monkeypatch.setattr(sys, "executable", str(made.path))
    return made


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGSTOP])
def test_a_file_is_decoded_again_if_its_idle_child_fails(number: signal.Signals, short: bytes) -> None:
    sandbox.warm_up()
    (process,) = children()
    os.kill(process, number)
    assert decode(short, max_duration=10).duration > 1
    assert process not in children()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGSTOP])
def test_a_child_that_fails_in_the_middle_changes_no_sample(
    number: signal.Signals, long: tuple[bytes, Floats], caplog: pytest.LogCaptureFixture
) -> None:
    data, expected = long
    with open_reader(data, max_duration=60) as reader:
        blocks = reader.blocks()
        first = next(blocks)
        (process,) = children()
        os.kill(process, number)
        assert np.array_equal(np.concatenate([first, *blocks], axis=1), expected)
    assert process not in children()
    assert "another one decodes it again" in caplog.text


@pytest.mark.parametrize(
    ("behaviour", "error", "starts"),
    [
        pytest.param("kill -KILL $$", DecoderUnavailable, 2, id="killed"),
        pytest.param("kill -TERM $$", DecoderUnavailable, 2, id="ended"),
        pytest.param("exec sleep 600", DecoderUnavailable, 2, id="sleeps"),
        pytest.param("kill -STOP $$", DecoderUnavailable, 2, id="stopped"),
        pytest.param("exec >&-; exec sleep 600", DecoderUnavailable, 2, id="closes its pipe"),
        pytest.param("while :; do printf ' '; sleep 0.01; done", DecoderUnavailable, 2, id="sends now and then"),
        pytest.param("while :; do :; done", DecoderUnavailable, 2, id="computes without an end"),
        pytest.param("kill -SEGV $$", NotDecodable, 2, id="crashes"),
        pytest.param("exit 1", NotDecodable, 2, id="fails"),
        pytest.param("kill -PROF $$", NotDecodable, 1, id="exceeds its processor time"),
        pytest.param("echo '[]'; exec sleep 600", NotDecodable, 1, id="sends something invalid"),
    ],
)
def test_how_children_fail(
    behaviour: str,
    error: type[ServiceError],
    starts: int,
    short: bytes,
    imitation: Imitation,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the file may have caused is its error; everything else is tried again, and then is unavailable."""
    monkeypatch.setattr(child, "_CPU_SECONDS", 0.1)
    imitation.write(READY, behaviour)
    with pytest.raises(ServiceError) as caught:
        decode(short, max_duration=1)
    assert type(caught.value) is error
    assert imitation.starts == starts


def test_a_child_that_does_not_become_ready(short: bytes, imitation: Imitation) -> None:
    imitation.write("exec sleep 600")
    with pytest.raises(DecoderUnavailable):
        decode(short, max_duration=10)


def test_a_second_child_may_not_report_another_kind_of_audio(
    long: tuple[bytes, Floats], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, _ = long
    imitation = Imitation(tmp_path / "child")
    imitation.write(
        READY,
        'echo \'{"sample_format": "u8", "sampling_rate": 8000, "channels": 2, "frames": 1}\'',
        "printf 12",
        "exec sleep 600",
    )
    with open_reader(data, max_duration=60) as reader:
        blocks = reader.blocks()
        next(blocks)
        (process,) = children()
        monkeypatch.setattr(sys, "executable", str(imitation.path))
        os.kill(process, signal.SIGKILL)
        with pytest.raises(AudioError, match="broke the decoder"):
            list(blocks)


def test_children_that_decode_are_ended_with_the_service(
    short: bytes, imitation: Imitation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "_STALL_SECONDS", 30.0)
    imitation.write(READY, "exec sleep 600")
    with ThreadPoolExecutor(1) as pool:
        decoding = pool.submit(decode, short, max_duration=10)
        while not sandbox._busy:
            assert not decoding.done()
            time.sleep(0.01)
        sandbox.end_busy()
        with pytest.raises(DecoderUnavailable):
            decoding.result(timeout=20)
    assert imitation.starts == 1
