"""A file of rows that survives whatever ends the process: each row is whole or not there, and none is there twice.

Beside it, in `NAME.run.json`, stands what the rows answer: model, options and the directory of the files. Another
question gets another file. Rows are appended one by one; those that are to be done again are taken out first, all at
once, by replacing the file.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import orjson

from service.errors import SetupError
from service.folders.finding import Found
from service.recognition.json_encoding import encode

_SYNC_SECONDS = 1.0
"""How much work a power failure may undo; what the process does or suffers undoes nothing."""


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a file that has a row: how the file looked then, and whether the row is a problem."""

    size: int | None
    modified: float | None
    failed: bool


class Journal:
    """The rows of one run and of those before it that it goes on from. Use it in a `with` statement.

    Args:
        path: the file of rows.
        beside: where to keep what was asked.
        asked: what the rows answer, as JSON has it.

    Raises:
        SetupError: if the file is something else, answers another question, is damaged other than at its end, or is
            being written by another process.
        OSError: if it cannot be read or written.
    """

    def __init__(self, path: Path, beside: Path, asked: Mapping[str, Any]) -> None:
        self._path = path
        self._known: dict[str, Known] = {}
        self._synced = time.monotonic()
        with ExitStack() as stack:
            self._claim(stack.enter_context(_reopened(beside)), asked)
            self._drop(self._read())
            self._file = stack.enter_context(path.open("ab", buffering=0))
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack:
            os.fsync(self._file.fileno())

    def to_do(self, files: Iterable[Found], *, again: bool) -> list[Found]:
        """The files that have no row, or one of another state of the file. Outdated rows are taken out.

        Args:
            files: all that are asked for.
            again: whether to do those again that have a problem.
        """
        waiting = [file for file in files if not self._holds(file, again=again)]
        outdated = {file.name for file in waiting if file.name in self._known}
        if outdated:
            for name in outdated:
                del self._known[name]
            self._replace(outdated)
        return waiting

    def add(self, file: Found, outcome: Mapping[str, object]) -> None:
        """Write the row of a file: what it was, and a result, or a `problem`."""
        row = {"file": file.name, "size": file.size, "modified": file.modified, **outcome}
        line = b"".join([*encode(row), b"\n"])
        while line:  # a full disk may take a part only, and fails the next time
            line = line[self._file.write(line) :]
        self._known[file.name] = Known(file.size, file.modified, "problem" in outcome)
        if time.monotonic() - self._synced > _SYNC_SECONDS:
            os.fsync(self._file.fileno())
            self._synced = time.monotonic()

    def failed(self, files: Iterable[Found]) -> int:
        """How many of these files have a problem for a row."""
        return sum(known.failed for file in files if (known := self._known.get(file.name)) is not None)

    def _holds(self, file: Found, *, again: bool) -> bool:
        known = self._known.get(file.name)
        if known is None or (known.size, known.modified) != (file.size, file.modified):
            return False
        return not (again and known.failed)

    def _claim(self, beside: BinaryIO, asked: Mapping[str, Any]) -> None:
        try:
            fcntl.flock(beside, fcntl.LOCK_EX | fcntl.LOCK_NB)  # ends with the process, however that ends
        except BlockingIOError:
            raise SetupError(f"{self._path} is being written by another process") from None
        asked_before = _json(beside.read())
        if not isinstance(asked_before, dict):
            if self._path.exists() and self._path.stat().st_size:
                raise SetupError(f"{self._path} exists and was not written by this command; name another file")
            beside.seek(0)
            beside.truncate()
            beside.write(orjson.dumps(asked, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
            beside.flush()
            os.fsync(beside.fileno())
        elif differing := [each for each in asked if asked_before.get(each) != asked[each]]:
            told = "; ".join(
                f"{name} {_shown(asked_before.get(name))}, not {_shown(asked[name])}" for name in differing
            )
            raise SetupError(f"{self._path} answers another question ({told}); name another file")

    def _read(self) -> int:
        """Note what the rows are about; returns the bytes at the end that are no whole row."""
        if not self._path.exists():
            return 0
        with self._path.open("rb") as file:
            for number, line in enumerate(file, 1):
                row = _json(line) if line.endswith(b"\n") else None
                if isinstance(row, dict) and isinstance(row.get("file"), str):
                    self._known[row["file"]] = Known(row.get("size"), row.get("modified"), "problem" in row)
                elif file.read(1):
                    raise SetupError(f"{self._path} is damaged in line {number}: it is no row of this command")
                else:
                    return len(line)
        return 0

    def _drop(self, half_row: int) -> None:
        if half_row:
            os.truncate(self._path, self._path.stat().st_size - half_row)

    def _replace(self, outdated: set[str]) -> None:
        draft = self._path.with_name(self._path.name + ".new")
        with draft.open("wb") as file:
            file.writelines(line for row, line in rows_of(self._path) if row["file"] not in outdated)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self._path)
        self._file.close()
        self._file = self._stack.enter_context(self._path.open("ab", buffering=0))


def rows_of(path: Path) -> Iterator[tuple[dict[str, Any], bytes]]:
    """The rows of a finished journal, each with its line."""
    with path.open("rb") as file:
        for line in file:
            yield orjson.loads(line), line


def _reopened(path: Path) -> BinaryIO:
    """Opened for reading and writing, made if it is not there, never emptied."""
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666), "r+b")


def _json(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return None


def _shown(value: object) -> str:
    return orjson.dumps(value).decode()
