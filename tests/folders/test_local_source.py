"""A run in this process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from service.errors import BackendBroken, InvalidOptions, SetupError
from service.folders import local_source
from service.folders.local_source import LocalSource
from service.folders.thread_pool import map_in_threads
from service.local import recognize_file
from service.recognition.options import Options, parse_options
from tests.api.sounds import wav
from tests.folders.served import code_of, files
from tests.inference.fake_backend import FakeControl


@pytest.fixture
def control() -> Iterator[FakeControl]:
    control = FakeControl()
    yield control
    control.release()


def local(control: FakeControl, options: Options | None = None) -> LocalSource:
    return LocalSource(control.load, options or Options(), max_duration=60, longest_clip=10)


def test_one_thread_has_the_model_while_others_decode(tmp_path: Path, control: FakeControl) -> None:
    with local(control) as source:
        done = list(map_in_threads(source.recognize, files(tmp_path, 8), 4, in_order=True))
    assert all("label" in outcome for _, outcome in done)
    assert done[0][1]["model"]["id"] == "fake"  # type: ignore[index]
    assert sum(map(len, control.runs)) == 8
    assert len(control.threads) == 1
    assert threading.get_ident() not in control.threads
    assert control.closes == 1


def test_the_next_file_is_decoded_while_the_model_works(
    tmp_path: Path, control: FakeControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = threading.Semaphore(0)

    def noted(runner: Any, path: Path, *args: Any, **options: Any) -> Any:
        class Runner:
            info = runner.info

            def run(self, clips: Any) -> Any:
                decoded.release()
                return runner.run(clips)

        return recognize_file(Runner(), path, *args, **options)

    monkeypatch.setattr(local_source, "recognize_file", noted)
    control.run_gate.clear()
    with local(control) as source:
        done = map_in_threads(source.recognize, files(tmp_path, 2), source.concurrency, in_order=True)
        waiting = threading.Thread(target=list, args=(done,))
        waiting.start()
        try:
            assert decoded.acquire(timeout=10)
            assert decoded.acquire(timeout=10)
            assert len(control.runs) <= 1
        finally:
            control.run_gate.set()
            waiting.join()


def test_a_gpu_is_given_a_batch_at_a_time(control: FakeControl) -> None:
    with local(control) as source:
        assert source.concurrency == 2
    control.info = replace(control.info, device="cuda:0")
    with local(control) as source:
        assert source.concurrency == control.limits.clips > 2


def test_what_is_wrong_with_a_file_is_a_problem(
    tmp_path: Path, control: FakeControl, caplog: pytest.LogCaptureFixture
) -> None:
    (good,) = files(tmp_path, 1)
    (tmp_path / "text.wav").write_text("no audio")
    (tmp_path / "long.wav").write_bytes(wav(11, rate=8000))
    with local(control) as source:
        assert code_of(source.recognize(tmp_path / "text.wav")) == "audio_not_decodable"
        assert code_of(source.recognize(tmp_path / "absent.wav")) == "file_unreadable"
        assert code_of(source.recognize(tmp_path)) == "file_unreadable"
        assert code_of(source.recognize(tmp_path / "long.wav")) == "audio_too_long"
        control.run_faults.append(RuntimeError("with a secret"))
        outcome = source.recognize(good)
        assert code_of(outcome) == "inference_failed"
        assert "secret" not in str(outcome)
        assert "secret" in caplog.text
        assert "label" in source.recognize(good)


def test_a_model_that_breaks_ends_the_run(tmp_path: Path, control: FakeControl) -> None:
    control.run_faults.append(BackendBroken("broken"))
    with local(control) as source, pytest.raises(SetupError, match="does not work any more"):
        source.recognize(*files(tmp_path, 1))


def test_labels_that_the_model_does_not_have_are_told_before_the_first_file(control: FakeControl) -> None:
    with pytest.raises(InvalidOptions, match="labels must be"):
        local(control, parse_options([("labels", "angri")]))
