"""One run over many files: a row for each in a file, now or from a run before."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from service.errors import SetupError
from service.folders.finding import Listing
from service.folders.journal import Journal
from service.folders.parquet import check_pyarrow, write_parquet
from service.folders.source import Source, identity
from service.folders.thread_pool import work_off
from service.recognition.options import Options

_PARQUET = ".parquet"


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run came to.

    Attributes:
        done: files that it recognised.
        known: files that had a row from a run before.
        failed: how many of all have a problem for a row.
        seconds: that it took.
    """

    done: int
    known: int
    failed: int
    seconds: float


def write_rows(listing: Listing, source: Source, options: Options, out: Path, *, threads: int, again: bool) -> Summary:
    """Recognise the files that have no row yet, and write their rows as they come.

    Args:
        listing: all files that are to have a row.
        source: who recognises them, with these options.
        options: kept beside the rows, to tell whether a later run asks the same.
        out: a file of JSON lines; or of Parquet, which is made of such a file beside it once all rows are there.
        threads: files at a time.
        again: whether files that have a problem for a row are done again.

    Raises:
        SetupError: if the file holds something else or cannot be written, or the source cannot go on.
    """
    journal_path = out
    if out.suffix == _PARQUET:
        check_pyarrow()
        journal_path = out.with_name(out.name + ".jsonl")
    asked: dict[str, Any] = {
        "root": str(listing.root),
        "model": identity(source.model),
        "options": options.model_dump(mode="json", exclude_defaults=True),
    }
    try:
        with Journal(journal_path, out.with_name(out.name + ".run.json"), asked) as journal:
            summary = _fill(journal, listing, source, threads, again)
        if out.suffix == _PARQUET:
            write_parquet(journal_path, out, asked)
    except OSError as error:  # files that cannot be read are rows; this is about what is written
        raise SetupError(f"{out} cannot be written: {error.strerror or error}") from error
    return summary


def _fill(journal: Journal, listing: Listing, source: Source, threads: int, again: bool) -> Summary:
    began = time.monotonic()
    waiting = journal.to_do(listing.files, again=again)
    known = len(listing.files) - len(waiting)
    with (
        tqdm(total=len(listing.files), initial=known, unit="file", disable=None, dynamic_ncols=True) as bar,
        closing(work_off(lambda file: source.recognize(file.path), waiting, threads, in_order=False)) as done,
    ):
        for file, outcome in done:
            journal.add(file, outcome)
            bar.update()
    return Summary(len(waiting), known, journal.failed(listing.files), time.monotonic() - began)
