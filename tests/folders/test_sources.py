"""Who recognises: this process, or a server."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.api.options import Options, parse_options
from service.client import Retries
from service.errors import BackendBroken, InvalidOptions, SetupError
from service.folders import sources
from service.folders.running import work_off
from service.folders.sources import LocalSource, ServerSource
from service.local import recognize_file
from tests.api.sounds import wav
from tests.client.scripted import Reply, refusal, scripted
from tests.folders.sources import MODEL
from tests.inference.fake_backend import FakeControl

MODELS = Reply(body=json.dumps({"models": [{**MODEL, "labels": [], "embedding_size": 8}]}).encode())
ANSWER = Reply(body=json.dumps({"id": "1", "model": MODEL, "audio": {"duration": 1.0}, "label": "sad"}).encode())


@pytest.fixture
def control() -> Iterator[FakeControl]:
    control = FakeControl()
    yield control
    control.release()


def local(control: FakeControl, options: Options | None = None) -> LocalSource:
    return LocalSource(control.load, options or Options(), max_duration=60, longest_clip=10)


def files(directory: Path, count: int) -> list[Path]:
    paths = [directory / f"{index}.wav" for index in range(count)]
    for index, path in enumerate(paths):
        path.write_bytes(wav(0.2, seed=index))
    return paths


def problem(outcome: Any) -> str:
    return str(outcome["problem"]["code"])


def test_one_thread_has_the_model_while_others_decode(tmp_path: Path, control: FakeControl) -> None:
    with local(control) as source:
        done = list(work_off(source.recognize, files(tmp_path, 8), 4, in_order=True))
    assert all("label" in outcome for _, outcome in done)
    assert done[0][1]["model"]["id"] == "fake"  # type: ignore[index]
    assert len(control.runs) == 8
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

    monkeypatch.setattr(sources, "recognize_file", noted)
    control.run_gate.clear()
    with local(control) as source:
        done = work_off(source.recognize, files(tmp_path, 2), source.at_once, in_order=True)
        waiting = threading.Thread(target=list, args=(done,))
        waiting.start()
        try:
            assert decoded.acquire(timeout=10)
            assert decoded.acquire(timeout=10)
            assert control.runs == []
        finally:
            control.run_gate.set()
            waiting.join()


def test_what_is_wrong_with_a_file_is_a_problem(
    tmp_path: Path, control: FakeControl, caplog: pytest.LogCaptureFixture
) -> None:
    (good,) = files(tmp_path, 1)
    (tmp_path / "text.wav").write_text("no audio")
    (tmp_path / "long.wav").write_bytes(wav(11, rate=8000))
    with local(control) as source:
        assert problem(source.recognize(tmp_path / "text.wav")) == "audio_not_decodable"
        assert problem(source.recognize(tmp_path / "absent.wav")) == "file_unreadable"
        assert problem(source.recognize(tmp_path)) == "file_unreadable"
        assert problem(source.recognize(tmp_path / "long.wav")) == "audio_too_long"
        control.run_faults.append(RuntimeError("with a secret"))
        outcome = source.recognize(good)
        assert problem(outcome) == "inference_failed"
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


def test_a_server_gets_the_options_and_its_answers_are_as_those_of_this_process(tmp_path: Path) -> None:
    options = parse_options([("labels", "sad"), ("labels", "happy"), ("trim", "false"), ("channels", "1")])
    with scripted(MODELS, ANSWER) as server, ServerSource(server.url, "0123456789abcdef", options) as source:
        outcome = source.recognize(*files(tmp_path, 1))
    assert outcome == {"model": MODEL, "audio": {"duration": 1.0}, "label": "sad"}
    assert source.model == MODEL
    assert server.asked[1].path == "/recognize?labels=sad%2Chappy&channels=1&trim=false"
    assert {asked.headers["x-api-key"] for asked in server.asked} == {"0123456789abcdef"}


def test_a_server_that_refuses_for_a_while_is_waited_for_by_all_together(tmp_path: Path) -> None:
    replies = [MODELS, *[refusal(retry_after="1")] * 2, *[refusal(503, retry_after="0")] * 6, ANSWER]
    with scripted(*replies) as server, ServerSource(server.url, None, Options()) as source:
        done = list(work_off(source.recognize, files(tmp_path, 12), 4, in_order=False))
    assert [outcome["label"] for _, outcome in done] == ["sad"] * 12
    assert len(server.asked) == 1 + 8 + 12
    moments = [asked.moment - server.asked[1].moment for asked in server.asked[1:]]
    assert sum(moment < 0.9 for moment in moments) <= 4


@pytest.mark.parametrize("status", [400, 413, 415, 422, 500, 504])
def test_problems_of_a_file_are_its_row(tmp_path: Path, status: int) -> None:
    with (
        scripted(MODELS, refusal(status, code="audio_empty")) as server,
        ServerSource(server.url, None, Options()) as source,
    ):
        outcome = source.recognize(*files(tmp_path, 1))
    assert outcome["problem"] == {
        "code": "audio_empty",
        "title": "No",
        "detail": "Not now.",
        "request_id": "from-the-server",
    }


def test_a_lost_answer_is_a_row_since_the_file_may_be_the_cause(tmp_path: Path) -> None:
    with scripted(MODELS, Reply(fault="half")) as server, ServerSource(server.url, None, Options()) as source:
        assert problem(source.recognize(*files(tmp_path, 1))) == "disconnected"
        assert problem(source.recognize(tmp_path / "absent.wav")) == "file_unreadable"


@pytest.mark.parametrize("status", [401, 403, 404, 502])
def test_problems_that_every_file_would_have_end_the_run(tmp_path: Path, status: int) -> None:
    with (
        scripted(MODELS, refusal(status, code="key_invalid")) as server,
        ServerSource(server.url, None, Options()) as source,
        pytest.raises(SetupError, match=f"{status} key_invalid"),
    ):
        source.recognize(*files(tmp_path, 1))


def test_a_server_that_goes_away_ends_the_run_when_patience_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "_PATIENCE", 0.3)
    with scripted(MODELS, ANSWER) as server:
        source = ServerSource(server.url, None, Options())
    with source, pytest.raises(SetupError, match="does not go on"):
        source.recognize(*files(tmp_path, 1))


def test_another_model_in_the_middle_ends_the_run(tmp_path: Path) -> None:
    other = Reply(body=ANSWER.body.replace(b'"r1"', b'"r2"'))
    with (
        scripted(MODELS, other) as server,
        ServerSource(server.url, None, Options()) as source,
        pytest.raises(SetupError, match="another model"),
    ):
        source.recognize(*files(tmp_path, 1))


def test_an_address_without_the_service_is_told_at_once() -> None:
    with scripted(Reply(404, b"<html>")) as server, pytest.raises(SetupError, match="404"):
        ServerSource(server.url, None, Options())
    with pytest.raises(SetupError, match="http://"):
        ServerSource("localhost:8000", None, Options())
    assert Retries().seconds < sources._PATIENCE
