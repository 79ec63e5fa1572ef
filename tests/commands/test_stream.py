"""The command `stream`, with a server in another thread."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
from prometheus_client import CollectorRegistry

from service.api.app import create_app
from service.cli import main
from service.observability.metrics import Metrics
from service.settings.sources import load_settings
from tests.api.double import RecognizerDouble
from tests.api.sockets import listening
from tests.api.stream.talking import RATE, words
from tests.audio_samples import AMR, encode

KEY = "0123456789abcdef-first"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The address of a server that needs a key."""
    found: list[str] = []
    ready, stop = threading.Event(), threading.Event()

    async def serve() -> None:
        recognizer = RecognizerDouble()
        app = create_app(recognizer, load_settings(api_keys=KEY), Metrics(CollectorRegistry()))
        async with listening(app) as port:
            found.append(f"http://127.0.0.1:{port}")
            ready.set()
            await asyncio.to_thread(stop.wait)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    ready.wait(20)
    yield found[0]
    stop.set()
    thread.join(20)


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SER_API_KEY", KEY)


@pytest.fixture
def call(tmp_path: Path) -> Path:
    path = tmp_path / "call.wav"
    left, right = words(2.5), words(0.5, 2.2)
    both = np.zeros((max(left.size, right.size), 2), "<i2")
    both[: left.size, 0], both[: right.size, 1] = left, right
    soundfile.write(path, both, RATE)
    return path


def run(*arguments: str | Path) -> int:
    return main(["stream", *map(str, arguments)])


def test_a_file_as_text(url: str, call: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(call, "--url", url, "--window", "2") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("window        0.0 –     2.0 s  ")
    assert sum(line.startswith("utterance  ") for line in lines) == 1
    assert lines[-2] == "result over 5.7 s"
    assert "s of speech: " in lines[-1]


def test_a_file_as_json_by_channel(url: str, call: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--channels", "split", "--labels", "happy,sad", "--label-language", "zh"]
    assert run(call, "--url", url, *options, "--json") == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {event["channel"] for event in events[:-1]} == {0, 1}
    assert [row["label"] for row in events[0]["scores"]] == ["开心", "难过"]
    assert [channel["channel"] for channel in events[-1]["channels"]] == [0, 1]


def test_channels_as_text(url: str, call: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(call, "--url", url, "--channels", "split", "--trim") == 0
    lines = capsys.readouterr().out.splitlines()
    assert any("channel 1  " in line for line in lines[:-2])
    assert [line.partition(",")[0] for line in lines[-2:]] == ["  channel 0", "  channel 1"]
    assert run(call, "--url", url, "--channels", "1", "--hop", "0.5", "--window", "1") == 0
    assert "channel" not in capsys.readouterr().out


def test_a_compressed_file_in_real_time(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The file lasts 1.5 s, so that the command must take longer than a second."""
    before = asyncio.new_event_loop()
    began = before.time()
    assert run(AMR, "--url", url, "--realtime", "--window", "0.5", "--json") == 0
    took = before.time() - began
    before.close()
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert events[-1]["type"] == "result"
    assert took > events[-1]["duration"] > 1


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["{here}/none.wav"], 1, "No such file"),
        (["{here}/text.wav"], 1, "not audio"),
        (["{here}/call.wav", "--window", "99"], 1, "422 invalid_options: window must be seconds, 0.1 to 30."),
        (["{here}/call.wav", "--labels", "bored"], 1, "labels must be different ones of"),
        (["{here}/call.wav", "--channels", "5"], 1, "select"),
        (["{here}/call.wav", "--url", "http://127.0.0.1:1"], 1, "No connection"),
        (["{here}/call.wav", "--url", "nowhere"], 2, "the URL must begin with"),
    ],
)
def test_errors_are_reported(
    url: str, call: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, message: str
) -> None:
    (call.parent / "text.wav").write_text("not audio")
    given = [each.format(here=call.parent) for each in arguments]
    given += [] if "--url" in given else ["--url", url]
    assert main(["stream", *given]) == status
    assert message in capsys.readouterr().err


def test_without_a_key(
    url: str, call: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SER_API_KEY")
    assert main(["stream", str(call), "--url", url]) == 1
    assert "401 key_missing" in capsys.readouterr().err


@pytest.mark.parametrize("channels", ["left", "-1", "1.5", "²"])
def test_invalid_channels(channels: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("call.wav", f"--channels={channels}")
    assert "must be mix, split, or the index" in capsys.readouterr().err


def test_a_damaged_file_ends_the_stream(url: str, call: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command ends immediately, without waiting for the idle timeout of the service."""
    samples, rate = soundfile.read(call, dtype="float32", always_2d=True)
    data = encode("flac", samples.T, rate)
    call.write_bytes(data[: len(data) // 2] + bytes(len(data) // 2))
    assert run(call, "--url", url) == 1
    assert "damaged" in capsys.readouterr().err


def test_a_file_that_ends_early_is_sent_as_far_as_it_goes(
    url: str, call: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = call.read_bytes()
    call.write_bytes(data[: len(data) // 2])
    assert run(call, "--url", url) == 0
    printed = capsys.readouterr()
    assert "result over" in printed.out
    assert "ends early" in printed.err


class Microphone:
    """A double of `sounddevice.RawInputStream`, which calls back from its own thread."""

    opened: list[dict[str, Any]] = []  # noqa: RUF012

    def __init__(self, *, callback: Any, **options: Any) -> None:
        self.opened.append(options)
        self._callback = callback
        self._thread = threading.Thread(target=self._speak)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._thread.join(10)

    def close(self) -> None:
        self.opened[-1]["closed"] = True

    def _speak(self) -> None:
        samples = words(2.5, rate=16_000)
        for begin in range(0, samples.size, 1600):
            self._callback(memoryview(samples[begin : begin + 1600].tobytes()), 1600, None, None)
        signal.raise_signal(signal.SIGINT)  # as Ctrl+C does


class NoMicrophoneError(Exception):
    pass


def test_the_microphone_is_recorded_until_the_interrupt(
    url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = SimpleNamespace(RawInputStream=Microphone, PortAudioError=NoMicrophoneError)
    monkeypatch.setitem(sys.modules, "sounddevice", module)
    assert run("mic", "--url", url, "--json") == 0
    out, err = capsys.readouterr()
    events = [json.loads(line) for line in out.splitlines()]
    assert events[-1]["duration"] == pytest.approx(4.5)
    assert events[-1]["speech_seconds"] == pytest.approx(2.5, abs=0.3)
    assert "Ctrl+C" in err
    assert Microphone.opened == [
        {"samplerate": 16_000, "channels": 1, "dtype": "int16", "blocksize": 1600, "closed": True}
    ]


def test_a_missing_microphone_is_an_error(
    url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(**_: Any) -> None:
        raise NoMicrophoneError("no default input device")

    module = SimpleNamespace(RawInputStream=none, PortAudioError=NoMicrophoneError)
    monkeypatch.setitem(sys.modules, "sounddevice", module)
    assert run("mic", "--url", url) == 1
    assert "no default input device" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    assert run("mic", "--url", url) == 1
    assert "pip install ./client '.[mic]'" in capsys.readouterr().err


def test_a_file_on_standard_input(url: str, call: Path, capfd: pytest.CaptureFixture[str]) -> None:
    command = [sys.executable, "-m", "service.cli", "stream", "-", "--url", url, "--window", "2"]
    with call.open("rb") as file, subprocess.Popen(["cat"], stdin=file, stdout=subprocess.PIPE) as cat:
        from_pipe = subprocess.run(command, stdin=cat.stdout, capture_output=True, timeout=30, check=True)
    assert run(call, "--url", url, "--window", "2") == 0
    assert from_pipe.stdout.decode() == capfd.readouterr().out


def test_a_terminal_that_is_not_utf8(url: str, call: Path) -> None:
    command = [sys.executable, "-m", "service.cli", "stream", str(call), "--url", url]
    variables = {**os.environ, "PYTHONIOENCODING": "iso-8859-1"}
    printed = subprocess.run(command, env=variables, capture_output=True, timeout=30, check=True).stdout
    assert b" - " in printed
    assert b" ###" in printed
