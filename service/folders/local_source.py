"""A run in this process."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from service.errors import QueueFull, ServiceError, SetupError
from service.folders.model_thread import ModelThread
from service.folders.source import FileOutcome, problem, unreadable
from service.inference.backend import Backend
from service.local import recognize_file
from service.recognition.answers import model_summary
from service.recognition.options import Options
from service.recognition.scores import resolve_labels


class LocalSource:
    """Recognises in this process. While the model works, the threads that ask decode what goes into its next run.

    Args:
        open_backend: opens the model.
        options: for every file.
        max_duration, longest_clip: seconds, as `service.local.recognize_file` takes them.

    Raises:
        SetupError: if the model cannot be opened.
        InvalidOptions: if it does not have the labels asked for.
    """

    def __init__(
        self, open_backend: Callable[[], Backend], options: Options, *, max_duration: float, longest_clip: float
    ) -> None:
        self._options = options
        self._max_duration = max_duration
        self._longest_clip = longest_clip
        self._runner = ModelThread(open_backend)
        # A CPU is busy with one clip, and the next one is decoded meanwhile; a GPU wants a whole batch at a time.
        self.concurrency = 2 if self._runner.info.device == "cpu" else self._runner.limits.clips
        self.model = model_summary(self._runner.info)
        if options.labels is not None:
            resolve_labels(options.labels, self._runner.info)  # wrong for one file, wrong for all

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._runner.close(wait=error is None)  # after an error nobody needs what still runs

    def recognize(self, path: Path) -> FileOutcome:
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
