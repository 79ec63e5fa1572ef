"""A run by a server."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from emotion2vec_client import Retries

from loadtests.common.ports import held_port
from service.errors import SetupError
from service.folders import server_source
from service.folders.server_source import ServerSource
from service.folders.thread_pool import work_off
from service.recognition.options import Options, parse_options
from tests.client.scripted import Reply, refusal, scripted
from tests.folders.double import MODEL
from tests.folders.served import ANSWER, MODELS, code_of, files


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
        assert code_of(source.recognize(*files(tmp_path, 1))) == "disconnected"
        assert code_of(source.recognize(tmp_path / "absent.wav")) == "file_unreadable"


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
    monkeypatch.setattr(server_source, "_PATIENCE", 0.3)
    with held_port() as port:
        with scripted(MODELS, ANSWER, port=port) as server:
            source = ServerSource(server.url, None, Options())
        with source, pytest.raises(SetupError, match="does not go on"):
            source.recognize(*files(tmp_path, 1))


def test_a_server_that_asks_to_come_back_another_day_ends_the_run(tmp_path: Path) -> None:
    with (
        scripted(MODELS, refusal(503, retry_after="7200", code="draining")) as server,
        ServerSource(server.url, None, Options()) as source,
    ):
        for _ in range(2):
            with pytest.raises(SetupError, match="503 draining"):
                source.recognize(*files(tmp_path, 1))
    assert len(server.asked) == 2


def test_a_server_that_works_on_another_file_is_not_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_source, "_PATIENCE", 0.5)
    monkeypatch.setattr(server_source, "_ABSENCE", (0.01, 0.02))
    long, *others = files(tmp_path, 3)
    replies = [MODELS, dataclasses.replace(ANSWER, pause=1.0), *[refusal(retry_after=None)] * 4, ANSWER]
    with scripted(*replies) as server, ServerSource(server.url, None, Options()) as source:
        done = dict(work_off(source.recognize, [long, *others], 3, in_order=True))
    assert [outcome["label"] for outcome in done.values()] == ["sad"] * 3


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
    assert Retries().seconds < server_source._PATIENCE
