"""What recognises the files of a run, and how what it finds is written down."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from service.recognition.result_types import ModelSummary

Outcome = Mapping[str, object]
"""A result as the service answers it, with its `model` and without an `id`; or a `problem`."""


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


def identity(model: ModelSummary) -> dict[str, str]:
    """What of a model decides on its answers."""
    return {"id": model["id"], "revision": model["revision"], "dtype": model["dtype"]}


def problem(code: str, title: str, detail: str, **more: str) -> Outcome:
    """The row of a file that could not be recognised."""
    return {"problem": {"code": code, "title": title, "detail": detail, **more}}


def unreadable(error: OSError) -> Outcome:
    """The row of a file that could not be read."""
    return problem("file_unreadable", "The file cannot be read", error.strerror or type(error).__name__)
