from __future__ import annotations

import os

import pytest

from loadtests.bench import with_processes
from loadtests.bench.with_processes import upload
from loadtests.common.load_generator import TimedResponse
from loadtests.common.server_process import ServerProcess
from loadtests.common.subprocess_worker import SubprocessWorker


class RefusingGenerator:
    """Answers every second request with 429, in a subprocess."""

    def callers_send(self, target: object, callers: int, requests: int, request: object) -> list[TimedResponse]:
        return [TimedResponse(429 if number % 2 else 200, 0.1, 1.0, 1.0) for number in range(requests)]


def test_uploads_are_forms_with_a_wav_file() -> None:
    request = upload(1.0)
    assert request.content_type.startswith("multipart/form-data; boundary=")
    assert b'name="file"; filename="clip.wav"' in request.body
    assert b"WAVEfmt" in request.body
    assert len(request.body) > 2 * 16_000


def test_any_status_but_200_is_an_error() -> None:
    server = ServerProcess(1, os.getpid(), 0.0)
    with (
        SubprocessWorker(RefusingGenerator) as generator,
        pytest.raises(RuntimeError, match=r"not all answered with 200.*\{200: 2, 429: 2\}"),
    ):
        with_processes._send(generator, server, 1.0, 1, 4)


def test_rates_count_from_the_first_request_to_the_last_answer() -> None:
    first = TimedResponse(200, 0.5, finished=10.5, audio=1.0)
    last = TimedResponse(200, 1.0, finished=14.0, audio=1.0)
    assert with_processes._rates([[last, first], [first]]) == [0.5, 2.0]
