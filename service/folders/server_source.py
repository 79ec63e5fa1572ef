"""Recognises the files of a run by calling a server."""

from __future__ import annotations

import random
import time
from http import HTTPStatus
from pathlib import Path
from typing import Any, Self, cast

from emotion2vec_client import Client, Problem, RequestFailed, Retries, Unreachable
from emotion2vec_client.retries import is_retryable

from service.data import EXAMPLES
from service.errors import DecoderUnavailable, SetupError
from service.folders.source import FileOutcome, identity, problem, unreadable
from service.folders.throttle import Throttle
from service.recognition.options import Options
from service.recognition.result_types import ModelSummary

_MAX_OUTAGE_SECONDS = 900.0
"""The run ends after this time in which the server refused every call or was unreachable."""

_RETRY_SECONDS = (0.5, 2.0)
"""Least and greatest random delay of a retry if the server does not send `Retry-After`."""

_ANSWER_TIMEOUT = 3600.0
"""Seconds to wait for one answer; longer than the default limit of a server for the longest recordings."""

_GOOD_FILE = "happy.wav"

_FILE_STATUSES = frozenset({400, 408, 413, 415, 422, 500, 504})
"""Statuses that concern a single file; any other would be the same for the next file."""


class ServerSource:
    """Recognises files by calling a server; thread-safe.

    If the server refuses a call or is unreachable, all threads wait and retry; after a refusal with fewer calls at a
    time.

    Args:
        url: address of the server.
        api_key: an API key, if the server needs one.
        options: for every file.

    Raises:
        SetupError: if there is no service at this address, or it refuses the key.
    """

    concurrency = 4

    def __init__(self, url: str, api_key: str | None, options: Options) -> None:
        try:
            with Client(url, api_key=api_key) as client:  # with few retries, so that a wrong address is reported soon
                self.model = _summary(client.models()[0])
        except ValueError as error:
            raise SetupError(str(error)) from None
        except RequestFailed as error:
            raise SetupError(f"{url}: {error.detail}") from error
        # The client does not retry, because the throttle below must see refusals; it still delays all calls after one.
        no_retries = Retries(attempts=1, seconds=_MAX_OUTAGE_SECONDS)
        self._client = Client(url, api_key=api_key, timeout=_ANSWER_TIMEOUT, retries=no_retries)
        self._options: dict[str, Any] = options.chosen()
        self._throttle = Throttle()
        self._answered_at = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def recognize(self, path: Path) -> FileOutcome:
        """As `Source` says."""
        while True:
            with self._throttle:
                try:
                    answer = self._client.recognize(path, **self._options)
                except OSError as error:
                    return unreadable(error)
                except RequestFailed as error:
                    if isinstance(error, Problem) and error.status == HTTPStatus.TOO_MANY_REQUESTS:
                        self._throttle.refused()
                    if not self._may_be_retried(error):
                        return self._problem_of(error)
                    delay = _retry_after(error) or random.uniform(*_RETRY_SECONDS)  # noqa: S311 - spreads the retries
                else:
                    self._answered_at = time.monotonic()
                    break
            time.sleep(delay)
        if identity(answer["model"]) != identity(self.model):
            raise SetupError("The server answers with another model than at the beginning of the run.")
        return {name: value for name, value in answer.items() if name != "id"}

    def _may_be_retried(self, error: RequestFailed) -> bool:
        """Whether the server has not processed the call and may accept it later. Called within the throttled call."""
        if _concerns_one_file(error):
            return False
        if not is_retryable(error, idempotent=False) or _retry_after(error) > _MAX_OUTAGE_SECONDS:
            return False
        # While another call is in progress, the server may be busy with that call alone.
        return time.monotonic() - self._answered_at < _MAX_OUTAGE_SECONDS or not self._throttle.alone

    def _problem_of(self, error: RequestFailed) -> FileOutcome:
        self._answered_at = time.monotonic()
        if _concerns_one_file(error):
            if _is_server_error(error):
                self._check_server()
            title = error.title if isinstance(error, Problem) else "There was no answer"
            return problem(error.code, title, error.detail, request_id=error.request_id)
        raise SetupError(f"The server cannot continue the run: {error}") from error

    def _check_server(self) -> None:
        """Send a file that is known to be good.

        Raises:
            SetupError: if the server fails on it as well. Any other answer, such as a refusal, decides nothing.
        """
        try:
            self._client.recognize(EXAMPLES / _GOOD_FILE)
        except RequestFailed as error:
            if _is_server_error(error):
                raise SetupError(f"The server fails on every file: {error}") from error


def _summary(model: ModelSummary) -> ModelSummary:
    return cast(ModelSummary, {name: model[name] for name in ModelSummary.__annotations__})  # type: ignore[literal-required]


def _is_server_error(error: RequestFailed) -> bool:
    return isinstance(error, Problem) and error.status == HTTPStatus.INTERNAL_SERVER_ERROR


def _retry_after(error: RequestFailed) -> float:
    return error.retry_after or 0.0 if isinstance(error, Problem) else 0.0


def _concerns_one_file(error: RequestFailed) -> bool:
    if isinstance(error, Problem):
        wrong_labels = any(each["field"] == "labels" for each in error.errors)  # the same for every file
        # The server has tried the file twice: it may be the reason why memory runs out.
        decoder_failed = error.code == DecoderUnavailable.code
        return (error.status in _FILE_STATUSES or decoder_failed) and not wrong_labels
    return not isinstance(error, Unreachable)
