"""Who recognises the files of a run: this process, or a server."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, cast

from service.api.answers import model_summary
from service.api.options import Options
from service.client import CallFailed, Client, Problem, Retries, Unreachable
from service.client.types import ModelSummary
from service.errors import BackendBroken, InferenceFailed, QueueFull, ServiceError, SetupError
from service.folders.throttle import Throttle
from service.inference.backend import Backend
from service.inference.scores import resolve_labels
from service.local import recognize_file
from service.results import BatchOutput, Clip, ModelInfo

logger = logging.getLogger(__name__)

Outcome = Mapping[str, object]
"""A result as the service answers it, with its `model` and without an `id`; or a `problem`."""

_PATIENCE = 900.0
"""Seconds for which a server may refuse or be away before a run gives up."""

_SILENCE = 3600.0
"""Seconds that it may take for one answer: more than it may be allowed itself, for the longest recordings."""

_ABOUT_THE_FILE = frozenset({400, 408, 413, 415, 422, 500, 504})
"""Statuses of problems that one file has; with any other the next file would fare no better."""


class Source(Protocol):
    """Recognises files, several at a time if asked from several threads. Use it in a `with` statement.

    Attributes:
        model: what answers.
        at_once: files at a time that make sense unless the user says otherwise.
    """

    model: ModelSummary
    at_once: int

    def __enter__(self) -> Self:
        """Itself."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let go of model or connections."""

    def recognize(self, path: Path) -> Outcome:
        """The result for one file, or its problem.

        Raises:
            SetupError: if it is not the file's fault, so that no other file can be recognised either.
        """


class LocalSource:
    """Recognises in this process. While the model works on one file, others are decoded by the threads that ask.

    Args:
        open_backend: opens the model.
        options: for every file.
        max_duration, longest_clip: seconds, as `service.local.recognize_file` takes them.

    Raises:
        SetupError: if the model cannot be opened.
        InvalidOptions: if it does not have the labels asked for.
    """

    at_once = 2

    def __init__(
        self, open_backend: Callable[[], Backend], options: Options, *, max_duration: float, longest_clip: float
    ) -> None:
        self._options = options
        self._max_duration = max_duration
        self._longest_clip = longest_clip
        self._thread = ThreadPoolExecutor(1, "model")
        self._runner = _InItsThread(self._thread.submit(open_backend).result(), self._thread)
        self.model = model_summary(self._runner.info)
        if options.labels is not None:
            resolve_labels(options.labels, self._runner.info)  # wrong for one file, wrong for all

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.submit(self._runner.close)
        self._thread.shutdown(wait=error is None)  # after an error nobody needs what still runs

    def recognize(self, path: Path) -> Outcome:
        """As `Source` says."""
        while True:
            try:
                result = recognize_file(
                    self._runner, path, self._options, max_duration=self._max_duration, longest_clip=self._longest_clip
                )
            except QueueFull as error:  # too many long files are open: this one's turn comes
                time.sleep(error.retry_after)
            except SetupError:
                raise
            except ServiceError as error:
                return _problem(error.code, error.title, error.detail)
            except OSError as error:
                return _unreadable(error)
            else:
                return {"model": self.model, **result}


class _InItsThread:
    """A backend for threads that did not make it."""

    def __init__(self, backend: Backend, thread: ThreadPoolExecutor) -> None:
        self._backend = backend
        self._thread = thread
        self.close = backend.close

    @property
    def info(self) -> ModelInfo:
        return self._backend.info

    def run(self, clips: Sequence[Clip]) -> BatchOutput:
        try:
            return self._thread.submit(self._backend.run, clips).result()
        except BackendBroken as error:
            raise SetupError("The model does not work any more; the same command goes on from here.") from error
        except Exception as error:  # concerns these clips alone, as a backend promises
            logger.exception("the model failed")
            raise InferenceFailed("The model failed on this audio.") from error


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
            self._client = Client(url, api_key=api_key, timeout=_SILENCE, retries=Retries.for_seconds(_PATIENCE))
        except ValueError as error:
            raise SetupError(str(error)) from None
        self._throttle = Throttle(lambda: self._client.refusals)
        self._options: dict[str, Any] = options.model_dump(exclude_defaults=True)
        try:
            with Client(url, api_key=api_key) as impatient:  # a wrong address shall not be waited for
                self.model = _summary(impatient.models()[0])
        except CallFailed as error:
            self._client.close()
            raise SetupError(f"{url}: {error.detail}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def recognize(self, path: Path) -> Outcome:
        """As `Source` says."""
        try:
            with self._throttle.turn():
                answer = self._client.recognize(path, **self._options)
        except OSError as error:
            return _unreadable(error)
        except CallFailed as error:
            if _is_about_the_file(error):
                title = error.title if isinstance(error, Problem) else "There was no answer"
                return _problem(error.code, title, error.detail, request_id=error.request_id)
            raise SetupError(f"The server does not go on: {error}") from error
        if identity(answer["model"]) != identity(self.model):
            raise SetupError("The server answers with another model than when the run began.")
        return {name: value for name, value in answer.items() if name != "id"}


def identity(model: ModelSummary) -> dict[str, str]:
    """What of a model decides on its answers."""
    return {"id": model["id"], "revision": model["revision"], "dtype": model["dtype"]}


def _summary(model: ModelSummary) -> ModelSummary:
    return cast(ModelSummary, {name: model[name] for name in ModelSummary.__annotations__})  # type: ignore[literal-required]


def _is_about_the_file(error: CallFailed) -> bool:
    if isinstance(error, Problem):
        of_all_files = any(each["field"] == "labels" for each in error.errors)
        return error.status in _ABOUT_THE_FILE and not of_all_files
    return not isinstance(error, Unreachable)


def _problem(code: str, title: str, detail: str, **more: str) -> Outcome:
    return {"problem": {"code": code, "title": title, "detail": detail, **more}}


def _unreadable(error: OSError) -> Outcome:
    return _problem("file_unreadable", "The file cannot be read", error.strerror or type(error).__name__)
