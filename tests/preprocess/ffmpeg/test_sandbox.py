"""The child processes that run FFmpeg: their limits, and how the service handles their failures."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from service.errors import NotDecodable, ServiceError
from service.preprocess.decode import decode
from service.preprocess.ffmpeg import sandbox
from tests.audio_samples import encode, speech
from tests.preprocess import bombs
from tests.preprocess.children import children, state, ticks
from tests.preprocess.test_decode import ROUNDED

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """No children of other tests before, and none left after."""
    sandbox.close()
    yield
    sandbox.close()


def test_a_child_is_reused() -> None:
    data = encode("mp3", speech(), 16_000)
    sandbox.warm_up()
    first = children()
    assert len(first) == 1
    for _ in range(3):
        decode(data, max_duration=10)
        with pytest.raises(NotDecodable):
            decode(b"no audio", max_duration=10)
    assert children() == first


def test_the_service_does_not_load_ffmpeg() -> None:
    code = "import sys, service.preprocess.decode as d; sys.exit('av' in sys.modules or 'torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_an_idle_child_that_died_is_replaced() -> None:
    data = encode("mp3", speech(), 16_000)
    sandbox.warm_up()
    (child,) = children()
    os.kill(child, signal.SIGKILL)
    while state(child) != "Z":
        time.sleep(0.01)
    assert decode(data, max_duration=10).duration > 1
    assert child not in children()


def test_a_child_that_dies_while_decoding_fails_only_its_own_file() -> None:
    sandbox.warm_up()
    (victim,) = children()
    long = bombs.long_opus(3600, "webm")
    short = encode("mp3", speech(), 16_000)
    with ThreadPoolExecutor(2) as pool:
        before = ticks(victim)
        failing = pool.submit(decode, long, max_duration=3600)
        while ticks(victim) < before + 5:  # until it decodes the file
            assert not failing.done()
            time.sleep(0.01)
        beside = pool.submit(decode, short, max_duration=10) if sandbox.PROCESSES > 1 else None
        os.kill(victim, signal.SIGKILL)
        with pytest.raises(NotDecodable, match="broke the decoder"):
            failing.result(timeout=60)
        assert beside is None or beside.result(timeout=60).duration > 1
    assert decode(short, max_duration=10).duration > 1
    assert victim not in children()


def test_a_layout_that_some_versions_of_pyav_free_twice() -> None:
    """The reason why PyAV 17.1 and 18 are excluded; with them only the child would crash."""
    samples = decode(bombs.mov_with_custom_layout(), max_duration=10).samples
    assert np.abs(samples - speech(channels=2)).max() < ROUNDED


def test_an_index_larger_than_memory_is_an_error() -> None:
    for entries in (1 << 20, 1 << 25, 1 << 30):
        with pytest.raises(ServiceError) as caught:
            decode(bombs.mp4_with_index(entries), max_duration=10)
        assert caught.value.code in ("audio_not_decodable", "audio_empty")
    assert decode(encode("m4a", speech(), 16_000), max_duration=10).duration > 1


def test_more_files_than_children_at_once() -> None:
    files = [encode("m4a" if number % 2 else "mp3", speech(clip=number), 16_000) for number in range(6)]
    expected = [decode(file, max_duration=10).samples for file in files]
    others = threading.active_count()
    with ThreadPoolExecutor(12) as pool:
        results = list(pool.map(lambda number: decode(files[number % 6], max_duration=10).samples, range(60)))
    for number, samples in enumerate(results):
        assert np.array_equal(samples, expected[number % 6])
    assert len(children()) <= sandbox.PROCESSES
    assert threading.active_count() <= others


@pytest.mark.parametrize(
    "attempt",
    [
        "open('/etc/passwd')",
        "open('/tmp/made-by-test', 'w')",
        "import socket; socket.socket()",
        "os.pipe()",
        "bytearray(400 << 20)",
    ],
)
def test_a_child_can_do_nothing_but_decode(attempt: str) -> None:
    code = f"""
import os
from service.preprocess.ffmpeg import child_main
child_main._confine()
try:
    {attempt}
except (OSError, MemoryError):
    os._exit(42)
os._exit(0)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False)
    assert done.returncode == 42


def test_a_child_that_takes_too_long_ends() -> None:
    """The timer runs in the child, and its signal ends the process even within a C function."""
    code = """
from service.preprocess.ffmpeg import child_main
child_main.CPU_SECONDS = 0.05
child_main.decode_blocks = lambda source, limits: sum(range(10**12))
child_main.main()
"""
    request = b'{"bytes": 1, "max_duration": 1, "whole": true}\n0'
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, input=request, stdout=subprocess.PIPE, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (-signal.SIGPROF, b'{"ready": true}\n')


def test_children_do_not_get_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SER_API_KEYS", "not-for-children")
    sandbox.warm_up()
    (child,) = children()
    assert b"not-for-children" not in Path(f"/proc/{child}/environ").read_bytes()


def test_children_end_with_the_service() -> None:
    code = """
import os, signal, sys
from service.preprocess.ffmpeg import sandbox
sandbox.warm_up()
print(sandbox._idle[0]._process.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, timeout=30, check=False)
    child = Path(f"/proc/{int(done.stdout)}/cmdline")
    deadline = time.monotonic() + 10
    with suppress(OSError):  # the process has ended and been reaped
        while child.read_bytes():
            assert time.monotonic() < deadline, "the child outlived the service"
            time.sleep(0.02)


def test_a_decoder_that_cannot_start_is_an_internal_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(ServiceError) as caught:
        decode(encode("mp3", speech(), 16_000), max_duration=10)
    assert caught.value.code == "internal_error"
    assert decode(encode("wav-s16", speech(), 16_000), max_duration=10).duration > 1
