"""`emotion2vec-service recognize`: recognise files and directories, in this process or by a server."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, cast

from service.commands import Commands
from service.commands.open_model import MODEL_SETTINGS, find_model, start_opening
from service.commands.printing import print_json, print_result
from service.errors import SettingsInvalid
from service.settings.sources import CLIENT_KEY_VARIABLE, add_flags, flags_of, load_settings

if TYPE_CHECKING:
    from service.folders.finding import FoundFile, Listing
    from service.folders.source import Source
    from service.recognition.options import Options

_FEW_FILES = 4
"""Up to this many files the weights are not packed, because packing takes longer than it saves."""

_MAX_CONCURRENCY = 256
_OUT_SUFFIXES = (".jsonl", ".ndjson", ".parquet")

_DEMONSTRATION = (
    "The embedded model is for demonstration only and not accurate. "
    "For real use, choose emotion2vec+ large: --model iic/emotion2vec_plus_large"
)


def add_parser(commands: Commands) -> None:
    """Add the command and its flags."""
    parser = commands.add_parser("recognize", help="recognise files and directories", allow_abbrev=False)
    parser.add_argument("files", nargs="+", metavar="FILE|DIRECTORY", help="`-` is a file on standard input")
    parser.add_argument(
        "--json", action="store_true", help="print one JSON document per line, as in answers of the service"
    )
    parser.add_argument(
        "--option", action="append", default=[], metavar="NAME=VALUE", help="an option of POST /recognize"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="write a row for each file to this .jsonl or .parquet file; if it exists, recognise only missing files",
    )
    parser.add_argument(
        "--retry-failed", action="store_true", help="with --out: recognise the files again whose row is a problem"
    )
    parser.add_argument(
        "--url", help=f"use the service at this address; {CLIENT_KEY_VARIABLE} contains its API key, if it needs one"
    )
    parser.add_argument(
        "--concurrency",
        type=int,
        metavar="N",
        help="files at a time: decoded for the model [2; on a GPU one batch], or sent to the service [4]",
    )
    parser.add_argument("--config", type=Path, help="YAML file with settings")
    add_flags(parser, [*MODEL_SETTINGS, "max_duration", "max_utterance_duration"])
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Recognise the files; the status is 1 if any failed.

    Raises:
        SetupError: if the model cannot be opened, the server refuses access, or a flag or setting is invalid.
        InvalidOptions: if an option is unknown or invalid.
    """
    _check(options)
    from service.folders.finding import find_files, path_argument
    from service.recognition.options import parse_options

    recognition_options = parse_options(
        (name, value) for name, _, value in (item.partition("=") for item in options.option)
    )
    if options.url and recognition_options.timeout is not None:
        raise SettingsInvalid("--option timeout cannot be used with --url, which waits for every file")
    listing = find_files([path_argument(each) for each in options.files])
    for message in listing.unreadable:
        print(message, file=sys.stderr)
    if not listing.files:
        print("There are no audio files.", file=sys.stderr)
        return int(bool(listing.unreadable))
    try:
        with (
            _with_copies(listing) as readable,
            _source(options, recognition_options, few=len(listing.files) <= _FEW_FILES) as source,
        ):
            failed = _recognize(options, recognition_options, readable, source)
            if not options.json and source.model["demonstration"]:
                print(_DEMONSTRATION, file=sys.stderr)
    except KeyboardInterrupt:
        print("Interrupted; with --out, the same command continues from here.", file=sys.stderr, flush=True)
        sys.stdout.flush()
        os._exit(130)  # without waiting for threads that wait for the model or a server
    return int(failed or bool(listing.unreadable))


def _check(options: argparse.Namespace) -> None:
    """Refuse flags that cannot be combined."""
    if options.out is None:
        if options.retry_failed:
            raise SettingsInvalid("--retry-failed needs --out")
    elif options.json:
        raise SettingsInvalid("--json cannot be combined with --out, whose rows are JSON already")
    elif options.out.suffix not in _OUT_SUFFIXES:
        raise SettingsInvalid("--out must be a file that ends with .jsonl, .ndjson or .parquet")
    if options.concurrency is not None and not 1 <= options.concurrency <= _MAX_CONCURRENCY:
        raise SettingsInvalid(f"--concurrency must be from 1 to {_MAX_CONCURRENCY}")
    if options.url and (given := ["config"] * (options.config is not None) + list(flags_of(options))):
        flags = ", ".join("--" + name.replace("_", "-") for name in given)
        raise SettingsInvalid(f"{flags}: not with --url, where the server decides about model and limits")


def _with_copies(listing: Listing) -> AbstractContextManager[Listing]:
    if not any(file.is_pipe for file in listing.files):
        return nullcontext(listing)
    from service.folders.pipes import with_copies  # seldom needed

    return with_copies(listing)


def _source(options: argparse.Namespace, recognition_options: Options, *, few: bool) -> Source:
    if options.url:
        from service.folders.server_source import ServerSource

        return ServerSource(options.url, os.environ.get(CLIENT_KEY_VARIABLE), recognition_options)
    settings = load_settings(options.config, **flags_of(options))
    open_backend = start_opening(find_model(settings), settings, few=few)
    from service.folders.local_source import LocalSource  # while the model is opened

    return LocalSource(
        open_backend,
        recognition_options,
        max_duration=settings.max_duration,
        longest_clip=settings.longest_clip,
    )


def _recognize(options: argparse.Namespace, recognition_options: Options, listing: Listing, source: Source) -> bool:
    threads = options.concurrency or source.concurrency
    if options.out is None:
        return _print_all(listing.files, source, threads, recognition_options, as_json=options.json)
    from service.folders.recognize_files import recognize_files

    summary = recognize_files(
        listing, source, recognition_options, options.out, threads=threads, retry_failed=options.retry_failed
    )
    print(
        f"{summary.done} files in {summary.seconds:.1f} s, {summary.already_done} already done; "
        f"{summary.failed} of all could not be recognised",
        file=sys.stderr,
    )
    return summary.failed > 0


def _print_all(
    files: Sequence[FoundFile], source: Source, threads: int, recognition_options: Options, *, as_json: bool
) -> bool:
    """Print the results of the files, in their order; returns whether any file has a problem."""
    from service.folders.finding import text_of
    from service.folders.thread_pool import map_in_threads
    from service.recognition.json_encoding import encode

    failed = False
    with closing(
        map_in_threads(lambda file: source.recognize(file.readable_path), files, threads, in_order=True)
    ) as done:
        for file, outcome in done:
            if "problem" in outcome:
                failed = True
                print(f"{text_of(file.path)}: {cast('dict[str, str]', outcome['problem'])['detail']}", file=sys.stderr)
            elif as_json:
                print_json(b"".join(encode({"file": text_of(file.path), **outcome})))
            else:
                print_result(text_of(file.path), outcome, recognition_options)
    return failed
