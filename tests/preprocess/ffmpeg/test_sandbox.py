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
from tests.preprocess.children import children, state
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


@pytest.fixture
def victim() -> Iterator[subprocess.Popen[bytes]]:
    """A process of the same user."""
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        process.kill()


ATTEMPTS = [
    "open('/etc/passwd')",
    "open('/tmp/made-by-test', 'w')",
    "import socket; socket.socket()",
    "os.pipe()",
    "os.fork()",
    "os.execv('/bin/true', ['true'])",
    "bytearray(400 << 20)",
    "resource.setrlimit(resource.RLIMIT_NOFILE, (9, 9))",
    # at other processes of the same user
    "os.kill(VICTIM, signal.SIGTERM)",
    "os.killpg(os.getpgid(VICTIM), 0)",
    "signal.pidfd_send_signal(os.pidfd_open(VICTIM), 0)",
    "signal.pthread_kill(threading.get_ident(), signal.SIGTERM)",
    "resource.prlimit(VICTIM, resource.RLIMIT_CPU, (1, 1))",
    "os.setpriority(os.PRIO_PROCESS, VICTIM, 19)",
    "os.sched_setaffinity(VICTIM, {0})",
    "call('ptrace', 16, VICTIM, 0, 0)",  # PTRACE_ATTACH
    "call('process_vm_readv', VICTIM, 0, 0, 0, 0, 0)",
    "call('process_vm_writev', VICTIM, 0, 0, 0, 0, 0)",
    # at files by their names, for which no file must be opened
    "os.unlink(NAME)",
    "os.rename(NAME, NAME + '2')",
    "os.chmod(NAME, 0)",
    "os.truncate(NAME, 0)",
    "os.symlink(NAME, NAME + '2')",
    "os.mkdir(NAME + '2')",
    "os.stat(NAME)",
]


def test_a_child_can_do_nothing_but_decode(victim: subprocess.Popen[bytes], tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("kept")
    code = f"""
import ctypes, os, resource, signal, socket, threading
from service.preprocess.ffmpeg import child_main
VICTIM, NAME = {victim.pid}, {str(file)!r}
libc = ctypes.CDLL(None, use_errno=True)
def call(name, *arguments):
    if getattr(libc, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), name)
report = os.dup(1)
child_main._confine()
for attempt in {ATTEMPTS!r}:
    try:
        exec(attempt)
        os.write(report, f"succeeded: {{attempt}}\\n".encode())
    except (OSError, MemoryError, ValueError):  # setrlimit raises the last
        pass
os.write(report, b"all done\\n")
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, timeout=30, check=False)
    assert done.stdout.decode().splitlines() == ["all done"]
    assert victim.poll() is None
    assert [(entry.name, entry.read_text()) for entry in tmp_path.iterdir()] == [("file", "kept")]


def test_children_are_confined() -> None:
    sandbox.warm_up()
    (child,) = children()
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{child}/status").read_text().splitlines())
    assert (status["Seccomp"], status["NoNewPrivs"], status["Threads"]) == ("2", "1", "1")


def test_a_child_that_takes_too_long_ends() -> None:
    """The timer runs in the child, and its signal ends the process even within a C function."""
    code = """
from service.preprocess.ffmpeg import child_main
child_main.decode_blocks = lambda source, limits: sum(range(10**12))
child_main.main()
"""
    request = b'{"bytes": 1, "cpu_seconds": 0.05, "max_duration": 1, "whole": true}\n0'
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, input=request, stdout=subprocess.PIPE, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (-signal.SIGPROF, b'{"ready": true, "filtered": true}\n')


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
