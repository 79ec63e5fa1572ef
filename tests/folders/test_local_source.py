"""Recognition of files in this process, with a fake backend."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from service.errors import BackendBroken, InvalidOptions, SetupError
from service.folders import local_source
from service.folders.local_source import LocalSource
from service.folders.source import FileOutcome
from service.folders.thread_pool import map_in_threads
from service.inference import supervisor
from service.inference.backend import BatchLimits
from service.recognition.options import Options, parse_options
from service.results import Clip, ClipOutput
from tests.api.sounds import wav
from tests.folders.served import code_of, files
from tests.inference import fake_backend
from tests.inference.fake_backend import KILL, FakeControl, answer, make_clip


@pytest.fixture
def control() -> Iterator[FakeControl]:
    control = FakeControl()
    yield control
    control.release()


@pytest.fixture(autouse=True)
def _quick_restarts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "SHORTEST_PAUSE", 0.01)


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def local(control: FakeControl, options: Options | None = None) -> LocalSource:
    return LocalSource(control.load, options or Options(), max_duration=60, longest_clip=10)


def test_other_threads_decode_while_the_model_runs(tmp_path: Path, control: FakeControl) -> None:
    with local(control) as source:
        done = list(map_in_threads(source.recognize, files(tmp_path, 8), 4, in_order=True))
    assert all("label" in outcome for _, outcome in done)
    assert done[0][1]["model"]["id"] == "fake"  # type: ignore[index]
    assert sum(map(len, control.runs)) == 8
    assert len(control.threads) == 1
    assert threading.get_ident() not in control.threads
    assert control.closes == 1


def recognize_while_it_runs(source: LocalSource, control: FakeControl, paths: list[Path]) -> list[FileOutcome]:
    """Recognise a first file and, while the model runs on it, the others one by one."""
    control.run_gate.clear()
    with ThreadPoolExecutor(16) as callers:
        first = callers.submit(source.recognize, paths[0])
        assert control.running.wait(10)
        asked = []
        for count, path in enumerate(paths[1:], 1):
            asked.append(callers.submit(source.recognize, path))
            wait_until(lambda count=count: source._engine.state().queued_clips == count)  # type: ignore[misc]
        control.run_gate.set()
        return [each.result(10) for each in (first, *asked)]


def test_clips_decoded_during_a_run_form_the_next_batch(tmp_path: Path) -> None:
    control = FakeControl(limits=BatchLimits(clips=3, seconds=60.0))
    with local(control) as source:
        outcomes = recognize_while_it_runs(source, control, files(tmp_path, 6))
    assert all("label" in outcome for outcome in outcomes)
    assert [len(run) for run in control.runs] == [1, 3, 2]


def test_on_a_gpu_the_concurrency_fills_a_batch(control: FakeControl) -> None:
    with local(control) as source:
        assert source.concurrency == 2
    control.info = replace(control.info, device="cuda:0")
    with local(control) as source:
        assert source.concurrency > control.limits.clips


def test_errors_of_a_file_become_problems(
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


def test_a_model_that_fails_on_everything_ends_the_run(tmp_path: Path, control: FakeControl) -> None:
    control.run_faults += [RuntimeError("fails on everything") for _ in range(20)]
    with local(control) as source, pytest.raises(SetupError, match="does not work any more"):
        source.recognize(*files(tmp_path, 1))


def test_a_model_whose_output_is_never_finite_ends_the_run(
    tmp_path: Path, control: FakeControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_numbers(clip: Clip, labels: int) -> ClipOutput:
        output = answer(clip, labels)
        return replace(output, logits=output.logits * np.nan)

    monkeypatch.setattr(fake_backend, "answer", without_numbers)
    with local(control) as source, pytest.raises(SetupError, match="does not work any more"):
        source.recognize(*files(tmp_path, 1))


def test_output_that_is_not_finite_for_one_file_is_its_problem(
    tmp_path: Path, control: FakeControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs = [np.nan, 1.0, 1.0]

    def first_without_numbers(clip: Clip, labels: int) -> ClipOutput:
        output = answer(clip, labels)
        return replace(output, logits=output.logits * np.float32(outputs.pop(0)))

    monkeypatch.setattr(fake_backend, "answer", first_without_numbers)
    first, second = files(tmp_path, 2)
    with local(control) as source:
        assert code_of(source.recognize(first)) == "inference_failed"
        assert "label" in source.recognize(second)


def test_a_model_that_breaks_is_loaded_again(tmp_path: Path, control: FakeControl) -> None:
    control.run_faults.append(BackendBroken("broken"))
    with local(control) as source:
        assert "label" in source.recognize(*files(tmp_path, 1))
    assert (control.loads, control.closes) == (2, 2)


def test_a_clip_that_breaks_the_backend_does_not_affect_other_clips(tmp_path: Path, control: FakeControl) -> None:
    first, second = files(tmp_path, 2)
    control.run_faults += [BackendBroken("broken"), BackendBroken("broken")]
    with local(control) as source:
        assert code_of(source.recognize(first)) == "inference_failed"
        assert "label" in source.recognize(second)


def test_a_file_during_which_the_worker_dies_is_retried_once(tmp_path: Path, control: FakeControl) -> None:
    control.run_faults.append(SystemExit())
    with local(control) as source:
        assert "label" in source.recognize(*files(tmp_path, 1))


def test_a_file_that_ends_the_worker_twice_is_a_problem(tmp_path: Path, control: FakeControl) -> None:
    path = tmp_path / "fatal.wav"
    soundfile.write(path, make_clip(first=KILL).samples, 16_000, subtype="FLOAT")
    with local(control) as source:
        assert code_of(source.recognize(path)) == "worker_dead"
        assert "label" in source.recognize(*files(tmp_path, 1))


def test_a_model_that_cannot_be_loaded_again_ends_the_run(tmp_path: Path, control: FakeControl) -> None:
    with local(control) as source:
        control.run_faults.append(SystemExit())
        control.load_faults.append(SetupError("no such device"))
        with pytest.raises(SetupError, match="no such device"):
            source.recognize(*files(tmp_path, 1))


def test_a_model_that_cannot_be_opened_is_an_error(control: FakeControl) -> None:
    control.load_faults.append(SetupError("no such device"))
    with pytest.raises(SetupError, match="no such device"):
        local(control)


def test_unknown_labels_are_reported_before_the_first_file(control: FakeControl) -> None:
    with pytest.raises(InvalidOptions, match="labels must be"):
        local(control, parse_options([("labels", "angri")]))


def test_files_wait_while_the_model_is_loaded_again(
    tmp_path: Path, control: FakeControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = files(tmp_path, 2)
    with local(control) as source, ThreadPoolExecutor(2) as callers:
        refused: list[str] = []
        monkeypatch.setattr(source._engine._observer, "request_refused", refused.append)
        control.gate.clear()
        control.run_faults.append(SystemExit())
        outcomes = [callers.submit(source.recognize, first)]
        wait_until(lambda: source._engine.health().state == "loading")
        outcomes.append(callers.submit(source.recognize, second))
        wait_until(lambda: refused == ["model_loading"])
        control.gate.set()
        assert all("label" in outcome.result(10) for outcome in outcomes)


def test_a_file_after_the_end_of_the_run_is_a_problem(tmp_path: Path, control: FakeControl) -> None:
    with local(control) as source:
        pass
    assert code_of(source.recognize(*files(tmp_path, 1))) == "draining"


def test_an_interrupt_waits_for_nothing(tmp_path: Path, control: FakeControl) -> None:
    control.run_gate.clear()
    source = local(control)
    with ThreadPoolExecutor(1) as callers:
        outcome = callers.submit(source.recognize, *files(tmp_path, 1))
        assert control.running.wait(10)
        source.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
        assert source._loop.is_running()
        control.run_gate.set()
        assert "label" in outcome.result(10)
        source._close(10.0)


@pytest.mark.torch
def test_the_files_at_a_time_fill_a_batch_on_a_gpu() -> None:
    torch_backend = pytest.importorskip("service.inference.backends.torch_backend")
    assert torch_backend.CUDA_LIMITS.clips <= local_source._GPU_FILES
