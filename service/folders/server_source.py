"""A run by a server."""

from __future__ import annotations

import random
import time
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

from emotion2vec_client import Client, Problem, RequestFailed, Retries, Unreachable
from emotion2vec_client.retries import is_retryable

from service.api.schemas import ModelSummary
from service.errors import SetupError
from service.folders.source import Outcome, identity, problem, unreadable
from service.folders.throttle import Throttle
from service.recognition.options import Options

_PATIENCE = 900.0
"""Seconds for which a server may refuse everything or be away before a run gives up."""

_ABSENCE = (0.5, 2.0)
"""Seconds from which to which a call is put off, by chance, when the server does not say when to come back."""

_SILENCE = 3600.0
"""Seconds that it may take for one answer: more than it may be allowed itself, for the longest recordings."""

_ABOUT_THE_FILE = frozenset({400, 408, 413, 415, 422, 500, 504})
"""Statuses of problems that one file has; with any other the next file would fare no better."""


class ServerSource:
    """Lets a server recognise. Refusals and absences are waited out, by all threads together; fewer go on then.

    Args:
        url: where it is.
        api_key: a key, if it asks for one.
        options: for every file.

    Raises:
        SetupError: if there is no service at this address, or it does not let the caller in.
    """

    at_once = 4

    def __init__(self, url: str, api_key: str | None, options: Options) -> None:
        try:
            with Client(url, api_key=api_key) as impatient:  # a wrong address shall not be waited for
                self.model = _summary(impatient.models()[0])
        except ValueError as error:
            raise SetupError(str(error)) from None
        except RequestFailed as error:
            raise SetupError(f"{url}: {error.detail}") from error
        # Refusals come back here, where fewer calls can be made of them; the client still holds all calls back.
        once = Retries(attempts=1, seconds=_PATIENCE)
        self._client = Client(url, api_key=api_key, timeout=_SILENCE, retries=once)
        self._options: dict[str, Any] = options.model_dump(exclude_defaults=True)
        self._throttle = Throttle()
        self._answered_at = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def recognize(self, path: Path) -> Outcome:
        """As `Source` says."""
        while True:
            with self._throttle.turn() as turn:
                try:
                    answer = self._client.recognize(path, **self._options)
                except OSError as error:
                    return unreadable(error)
                except RequestFailed as error:
                    turn.refused = isinstance(error, Problem) and error.status == HTTPStatus.TOO_MANY_REQUESTS
                    if not self._may_be_waited_out(error):
                        return self._problem_of(error)
                    wait = _asked_to_wait(error) or random.uniform(*_ABSENCE)  # noqa: S311 - spreads load
                else:
                    self._answered_at = time.monotonic()
                    break
            time.sleep(wait)
        if identity(answer["model"]) != identity(self.model):
            raise SetupError("The server answers with another model than when the run began.")
        return {name: value for name, value in answer.items() if name != "id"}

    def _may_be_waited_out(self, error: RequestFailed) -> bool:
        """Whether the call was not taken and may be later; within the call's turn."""
        if not is_retryable(error, idempotent=False) or _asked_to_wait(error) > _PATIENCE:
            return False
        # While another call is under way, the server may be busy with nothing but that.
        return time.monotonic() - self._answered_at < _PATIENCE or not self._throttle.alone

    def _problem_of(self, error: RequestFailed) -> Outcome:
        self._answered_at = time.monotonic()
        if _is_about_the_file(error):
            title = error.title if isinstance(error, Problem) else "There was no answer"
            return problem(error.code, title, error.detail, request_id=error.request_id)
        raise SetupError(f"The server does not go on: {error}") from error


def _summary(model: ModelSummary) -> ModelSummary:
    return cast(ModelSummary, {name: model[name] for name in ModelSummary.__annotations__})  # type: ignore[literal-required]


def _asked_to_wait(error: RequestFailed) -> float:
    return error.retry_after or 0.0 if isinstance(error, Problem) else 0.0


def _is_about_the_file(error: RequestFailed) -> bool:
    if isinstance(error, Problem):
        of_all_files = any(each["field"] == "labels" for each in error.errors)
        return error.status in _ABOUT_THE_FILE and not of_all_files
    return not isinstance(error, Unreachable)
