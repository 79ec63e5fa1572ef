"""Recognition of the files of a run by a server."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from emotion2vec_client import Retries

from loadtests.common.ports import held_port
from service.data import EXAMPLES
from service.errors import SetupError
from service.folders import server_source
from service.folders.server_source import ServerSource
from service.folders.thread_pool import map_in_threads
from service.recognition.options import Options, parse_options
from tests.client.scripted_server import Reply, refusal, scripted
from tests.folders.double import MODEL
from tests.folders.served import ANSWER, MODELS, code_of, files


def test_the_server_gets_the_options_and_its_answers_have_the_format_of_local_results(tmp_path: Path) -> None:
    options = parse_options([("labels", "sad"), ("labels", "happy"), ("trim", "false"), ("channels", "1")])
    with scripted(MODELS, ANSWER) as server, ServerSource(server.url, "0123456789abcdef", options) as source:
        outcome = source.recognize(*files(tmp_path, 1))
    assert outcome == {"model": MODEL, "audio": {"duration": 1.0}, "label": "sad"}
    assert source.model == MODEL
    assert server.received[1].path == "/recognize?labels=sad%2Chappy&channels=1&trim=false"
    assert {request.headers["x-api-key"] for request in server.received} == {"0123456789abcdef"}


def test_refused_calls_are_retried_and_all_threads_wait(tmp_path: Path) -> None:
    replies = [MODELS, *[refusal(retry_after="1")] * 2, *[refusal(503, retry_after="0")] * 6, ANSWER]
    with scripted(*replies) as server, ServerSource(server.url, None, Options()) as source:
        done = list(map_in_threads(source.recognize, files(tmp_path, 12), 4, in_order=False))
    assert [outcome["label"] for _, outcome in done] == ["sad"] * 12
    assert len(server.received) == 1 + 8 + 12
    moments = [request.moment - server.received[1].moment for request in server.received[1:]]
    assert sum(moment < 0.9 for moment in moments) <= 4


@pytest.mark.parametrize("status", [400, 413, 415, 422, 500, 504])
def test_problems_of_a_file_become_its_row(tmp_path: Path, status: int) -> None:
    with (
        scripted(MODELS, refusal(status, code="audio_empty"), ANSWER) as server,
        ServerSource(server.url, None, Options()) as source,
    ):
        outcome = source.recognize(*files(tmp_path, 1))
    assert outcome["problem"] == {
        "code": "audio_empty",
        "title": "No",
        "detail": "Not now.",
        "request_id": "from-the-server",
    }


def test_a_server_that_fails_on_every_file_ends_the_run(tmp_path: Path) -> None:
    with (
        scripted(MODELS, refusal(500, code="inference_failed")) as server,
        ServerSource(server.url, None, parse_options([("channels", "1")])) as source,
        pytest.raises(SetupError, match="fails on every file: 500 inference_failed"),
    ):
        source.recognize(*files(tmp_path, 1))
    assert server.received[2].path == "/recognize"  # without the options
    assert server.received[2].body == (EXAMPLES / "happy.wav").read_bytes()


@pytest.mark.parametrize("reply", [ANSWER, refusal(429), refusal(422)])
def test_a_good_file_that_is_not_failed_on_continues_the_run(tmp_path: Path, reply: Reply) -> None:
    with (
        scripted(MODELS, refusal(500), reply) as server,
        ServerSource(server.url, None, Options()) as source,
    ):
        assert code_of(source.recognize(*files(tmp_path, 1))) == "queue_full"


def test_a_broken_connection_becomes_a_row_because_the_file_may_be_the_cause(tmp_path: Path) -> None:
    with scripted(MODELS, Reply(fault="half")) as server, ServerSource(server.url, None, Options()) as source:
        assert code_of(source.recognize(*files(tmp_path, 1))) == "disconnected"
        assert code_of(source.recognize(tmp_path / "absent.wav")) == "file_unreadable"


@pytest.mark.parametrize("status", [401, 403, 404, 502])
def test_problems_that_concern_all_files_end_the_run(tmp_path: Path, status: int) -> None:
    with (
        scripted(MODELS, refusal(status, code="key_invalid")) as server,
        ServerSource(server.url, None, Options()) as source,
        pytest.raises(SetupError, match=f"{status} key_invalid"),
    ):
        source.recognize(*files(tmp_path, 1))


def test_a_file_whose_decoder_fails_is_a_problem_of_that_file(tmp_path: Path) -> None:
    failed = refusal(503, retry_after=None, code="decoder_unavailable")
    with scripted(MODELS, failed, ANSWER) as server, ServerSource(server.url, None, Options()) as source:
        first, second = files(tmp_path, 2)
        assert code_of(source.recognize(first)) == "decoder_unavailable"
        assert source.recognize(second)["label"] == "sad"
    assert len(server.received) == 3


def test_a_server_that_stays_unreachable_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_source, "_MAX_OUTAGE_SECONDS", 0.3)
    with held_port() as port:
        with scripted(MODELS, ANSWER, port=port) as server:
            source = ServerSource(server.url, None, Options())
        with source, pytest.raises(SetupError, match="cannot continue"):
            source.recognize(*files(tmp_path, 1))


def test_a_very_long_retry_after_ends_the_run(tmp_path: Path) -> None:
    with (
        scripted(MODELS, refusal(503, retry_after="7200", code="draining")) as server,
        ServerSource(server.url, None, Options()) as source,
    ):
        for _ in range(2):
            with pytest.raises(SetupError, match="503 draining"):
                source.recognize(*files(tmp_path, 1))
    assert len(server.received) == 2


def test_a_server_that_is_busy_with_another_file_does_not_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_source, "_MAX_OUTAGE_SECONDS", 0.5)
    monkeypatch.setattr(server_source, "_RETRY_SECONDS", (0.01, 0.02))
    long, *others = files(tmp_path, 3)
    replies = [MODELS, dataclasses.replace(ANSWER, pause=1.0), *[refusal(retry_after=None)] * 4, ANSWER]
    with scripted(*replies) as server, ServerSource(server.url, None, Options()) as source:
        done = dict(map_in_threads(source.recognize, [long, *others], 3, in_order=True))
    assert [outcome["label"] for outcome in done.values()] == ["sad"] * 3


def test_a_change_of_the_model_ends_the_run(tmp_path: Path) -> None:
    other = Reply(body=ANSWER.body.replace(b'"r1"', b'"r2"'))
    with (
        scripted(MODELS, other) as server,
        ServerSource(server.url, None, Options()) as source,
        pytest.raises(SetupError, match="another model"),
    ):
        source.recognize(*files(tmp_path, 1))


def test_an_address_without_the_service_is_an_error_without_retries() -> None:
    with scripted(Reply(404, b"<html>")) as server, pytest.raises(SetupError, match="404"):
        ServerSource(server.url, None, Options())
    with pytest.raises(SetupError, match="http://"):
        ServerSource("localhost:8000", None, Options())
    assert Retries().seconds < server_source._MAX_OUTAGE_SECONDS
