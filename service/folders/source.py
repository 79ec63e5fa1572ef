"""The interface of what recognises the files of a run, and the format of its results."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

if TYPE_CHECKING:
    from service.recognition.result_types import ModelSummary


FileOutcome = Mapping[str, object]
"""A result as in the answer of the service, with `model` and without `id`; or a `problem`."""


class Source(Protocol):
    """Recognises files; thread-safe. Use it in a `with` statement.

    Attributes:
        model: the model that recognises.
        concurrency: files at a time unless the user chooses another number.
    """

    model: ModelSummary
    concurrency: int

    def __enter__(self) -> Self:
        """Return itself."""

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Release the model or the connections."""

    def recognize(self, path: Path) -> FileOutcome:
        """The result for one file, or its problem.

        Raises:
            SetupError: if the cause is not this file, so that no other file could be recognised either.
        """


def identity(model: ModelSummary) -> dict[str, str]:
    """The attributes of a model on which its answers depend."""
    return {"id": model["id"], "revision": model["revision"], "dtype": model["dtype"]}


def problem(code: str, title: str, detail: str, **more: str) -> FileOutcome:
    """The row of a file that could not be recognised."""
    return {"problem": {"code": code, "title": title, "detail": detail, **more}}


def unreadable(error: OSError) -> FileOutcome:
    """The row of a file that could not be read."""
    return problem("file_unreadable", "The file cannot be read", error.strerror or type(error).__name__)
