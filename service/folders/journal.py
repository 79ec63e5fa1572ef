"""A file of rows that stays valid however the process ends: every row is complete, and no audio file has two.

A second file contains the parameters of the run: the model, the options and the directory of the files. A run with
other parameters needs another journal. Rows are appended one by one. Outdated rows are removed at the start of a run,
all at once, by replacing the file.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

import orjson

from service.errors import SetupError
from service.folders.finding import FoundFile
from service.recognition.json_encoding import encode

_SYNC_SECONDS = 1.0
"""A power failure may lose the rows of this time; the end of the process loses none."""


@dataclass(frozen=True, slots=True)
class RowState:
    """The size and time of modification that a file had when its row was written, and whether the row is a problem."""

    size: int | None
    modified: float | None
    failed: bool


class Journal:
    """The rows of a run and of the earlier runs that it continues. Use it in a `with` statement.

    Args:
        path: the file of rows.
        parameters_path: the file of the parameters.
        parameters: the parameters of the run, as JSON values.

    Raises:
        SetupError: if the file is not a journal, belongs to a run with other parameters, is damaged anywhere but in
            its last line, or is in use by another process.
        OSError: if a file cannot be read or written.
    """

    def __init__(self, path: Path, parameters_path: Path, parameters: Mapping[str, Any]) -> None:
        self._path = path
        self._rows: dict[str, RowState] = {}
        self._synced = time.monotonic()
        with ExitStack() as stack:
            self._lock(stack.enter_context(_open_or_create(parameters_path)), parameters)
            self._read()
            self._file = stack.enter_context(path.open("ab", buffering=0))
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._stack:
            os.fsync(self._file.fileno())

    def pending(self, files: Iterable[FoundFile], *, retry_failed: bool) -> list[FoundFile]:
        """Remove outdated rows; return the files that have no row or had an outdated one.

        Args:
            files: all files of the run.
            retry_failed: whether rows with a problem are outdated.
        """
        pending = [file for file in files if not self._is_current(file, retry_failed=retry_failed)]
        outdated = {file.name for file in pending if file.name in self._rows}
        if outdated:
            for name in outdated:
                del self._rows[name]
            self._remove(outdated)
        return pending

    def add(self, file: FoundFile, outcome: Mapping[str, object]) -> None:
        """Append the row of a file: its name, size and time of modification, and a result or a `problem`."""
        row = {"file": file.name, "size": file.size, "modified": file.modified, **outcome}
        line = b"".join([*encode(row), b"\n"])
        while line:  # a full disk may accept only a part; the next write fails
            line = line[self._file.write(line) :]
        self._rows[file.name] = RowState(file.size, file.modified, "problem" in outcome)
        if time.monotonic() - self._synced > _SYNC_SECONDS:
            os.fsync(self._file.fileno())
            self._synced = time.monotonic()

    def failed(self, files: Iterable[FoundFile]) -> int:
        """The number of these files whose row is a problem."""
        return sum(row.failed for file in files if (row := self._rows.get(file.name)) is not None)

    def _is_current(self, file: FoundFile, *, retry_failed: bool) -> bool:
        row = self._rows.get(file.name)
        if row is None or (row.size, row.modified) != (file.size, file.modified):
            return False
        return not (retry_failed and row.failed)

    def _lock(self, file: BinaryIO, parameters: Mapping[str, Any]) -> None:
        """Lock the file of parameters; then write them, or compare them with those of the earlier run."""
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # released when the process ends, however it ends
        except BlockingIOError:
            raise SetupError(f"{self._path} is in use by another process") from None
        earlier = _json(file.read())
        if not isinstance(earlier, dict):
            if self._path.exists() and self._path.stat().st_size:
                raise SetupError(f"{self._path} exists and was not written by this command; choose another file")
            file.seek(0)
            file.truncate()
            file.write(orjson.dumps(parameters, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
            file.flush()
            os.fsync(file.fileno())
        elif different := [name for name in parameters if earlier.get(name) != parameters[name]]:
            details = "; ".join(
                f"{name} {_shown(earlier.get(name))}, not {_shown(parameters[name])}" for name in different
            )
            raise SetupError(f"{self._path} belongs to a run with other parameters ({details}); choose another file")

    def _read(self) -> None:
        """Read the state of all rows; remove an incomplete row at the end."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            for number, line in enumerate(file, 1):
                row = _json(line) if line.endswith(b"\n") else None
                if isinstance(row, dict) and isinstance(row.get("file"), str):
                    self._rows[row["file"]] = RowState(row.get("size"), row.get("modified"), "problem" in row)
                elif file.read(1):
                    raise SetupError(f"{self._path} is damaged: line {number} is not a row of this command")
                else:
                    os.truncate(self._path, self._path.stat().st_size - len(line))

    def _remove(self, outdated: set[str]) -> None:
        draft = self._path.with_name(self._path.name + ".new")
        with draft.open("wb") as file:
            file.writelines(line for row, line in read_rows(self._path) if row["file"] not in outdated)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self._path)
        self._file.close()
        self._file = self._stack.enter_context(self._path.open("ab", buffering=0))


def read_rows(path: Path) -> Iterator[tuple[dict[str, Any], bytes]]:
    """The rows of a journal without incomplete rows, each with its line."""
    with path.open("rb") as file:
        for line in file:
            yield orjson.loads(line), line


def _open_or_create(path: Path) -> BinaryIO:
    """Open a file for reading and writing, without truncating it."""
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666), "r+b")


def _json(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return None


def _shown(value: object) -> str:
    return orjson.dumps(value).decode()
