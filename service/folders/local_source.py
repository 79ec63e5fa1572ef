"""A run in this process."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from service.api.answers import model_summary
from service.api.options import Options
from service.errors import BackendBroken, InferenceFailed, QueueFull, ServiceError, SetupError
from service.folders.source import Outcome, problem, unreadable
from service.inference.backend import Backend
from service.inference.scores import resolve_labels
from service.local import recognize_file
from service.results import BatchOutput, Clip, ModelInfo

logger = logging.getLogger(__name__)


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
                return problem(error.code, error.title, error.detail)
            except OSError as error:
                return unreadable(error)
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
            running = self._thread.submit(self._backend.run, clips)
        except RuntimeError:  # nobody waits for this file any more
            raise InferenceFailed("The run was given up.") from None
        try:
            return running.result()
        except BackendBroken as error:
            raise SetupError("The model does not work any more; the same command goes on from here.") from error
        except Exception as error:  # concerns these clips alone, as a backend promises
            logger.exception("the model failed")
            raise InferenceFailed("The model failed on this audio.") from error
