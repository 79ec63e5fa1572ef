"""Recognises many files and writes a row for each to a file; continues an earlier run."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from service.errors import SetupError
from service.folders.finding import Listing, text_of
from service.folders.journal import Journal
from service.folders.parquet import check_pyarrow, write_parquet
from service.folders.source import Source, identity
from service.folders.thread_pool import map_in_threads
from service.recognition.options import Options

_PARQUET = ".parquet"


@dataclass(frozen=True, slots=True)
class RunSummary:
    """The counts of a run.

    Attributes:
        done: files that this run processed.
        already_done: files that had a row from an earlier run.
        failed: files of both kinds whose row is a problem.
        seconds: duration of this run.
    """

    done: int
    already_done: int
    failed: int
    seconds: float


def recognize_files(
    listing: Listing, source: Source, options: Options, out: Path, *, threads: int, retry_failed: bool
) -> RunSummary:
    """Recognise the files that have no row yet, and write each row as soon as it is known.

    Args:
        listing: all files of the run.
        source: recognises the files with these options.
        options: stored next to the rows, so that a later run with other options is refused.
        out: a file of JSON lines, or a Parquet file, which is converted from such a file when all rows are written.
        threads: files at a time.
        retry_failed: whether files whose row is a problem are recognised again.

    Raises:
        SetupError: if the file is not a journal of the same run or cannot be written, or the source cannot continue.
    """
    journal_path = out
    if out.suffix == _PARQUET:
        check_pyarrow()
        journal_path = out.with_name(out.name + ".jsonl")
    parameters: dict[str, Any] = {
        "root": text_of(listing.root),
        "model": identity(source.model),
        "options": {
            name: list(value) if isinstance(value, tuple) else value for name, value in options.chosen().items()
        },
    }
    try:
        with Journal(journal_path, out.with_name(out.name + ".run.json"), parameters) as journal:
            summary = _fill(journal, listing, source, threads, retry_failed)
        if out.suffix == _PARQUET:
            write_parquet(journal_path, out, parameters)
    except OSError as error:  # of the written files; files that cannot be read get a row
        raise SetupError(f"{out} cannot be written: {error.strerror or error}") from error
    return summary


def _fill(journal: Journal, listing: Listing, source: Source, threads: int, retry_failed: bool) -> RunSummary:
    began = time.monotonic()
    pending = journal.pending(listing.files, retry_failed=retry_failed)
    already_done = len(listing.files) - len(pending)
    with (
        tqdm(total=len(listing.files), initial=already_done, unit="file", disable=None, dynamic_ncols=True) as bar,
        closing(
            map_in_threads(lambda file: source.recognize(file.readable_path), pending, threads, in_order=False)
        ) as done,
    ):
        for file, outcome in done:
            journal.add(file, outcome)
            bar.update()
    return RunSummary(len(pending), already_done, journal.failed(listing.files), time.monotonic() - began)
