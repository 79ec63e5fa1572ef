"""`emotion2vec-service recognize`: recognise files and directories, in this process or by a server."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, cast

from service.commands import Commands
from service.commands.open_model import MODEL_SETTINGS, find_model, open_model
from service.errors import SettingsInvalid
from service.settings.sources import CLIENT_KEY_VARIABLE, add_flags, flags_of, load_settings

if TYPE_CHECKING:
    from service.folders.finding import Found, Listing
    from service.folders.source import Outcome, Source
    from service.recognition.options import Options
    from service.recognition.result_types import FileResult, SegmentedResult

_FEW_FILES = 4
"""Up to which a short start saves more time than packed weights would."""

_MOST_AT_ONCE = 256
_OUT_SUFFIXES = (".jsonl", ".ndjson", ".parquet")

_DEMONSTRATION = (
    "The embedded model is for demonstration: it shows the path, not the state of the art. "
    "For real use, serve emotion2vec+ large: --model iic/emotion2vec_plus_large"
)


def add_parser(commands: Commands) -> None:
    """Add the command and its flags."""
    parser = commands.add_parser("recognize", help="recognise files and directories", allow_abbrev=False)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE|DIRECTORY")
    parser.add_argument("--json", action="store_true", help="one JSON document a line, as the service answers")
    parser.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="as in POST /recognize")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="write a row for each file to this .jsonl or .parquet file; where it exists, go on with what is missing",
    )
    parser.add_argument(
        "--retry-failed", action="store_true", help="with --out: do those files again that have a problem for a row"
    )
    parser.add_argument(
        "--url", help=f"let the service at this address do it; its key, if it asks for one, is {CLIENT_KEY_VARIABLE}"
    )
    parser.add_argument(
        "--concurrency",
        type=int,
        metavar="N",
        help="files at a time: decoded for the model [2, on a GPU a batch], or sent to the service [4]",
    )
    parser.add_argument("--config", type=Path, help="a YAML file with settings")
    add_flags(parser, [*MODEL_SETTINGS, "max_duration", "max_utterance_duration"])
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Recognise the files; the status is 1 if any failed.

    Raises:
        SetupError: if the model cannot be opened, the server does not let us in, or a flag or setting is bad.
        InvalidOptions: if an option is unknown or bad.
    """
    _check(options)
    from service.folders.finding import find_files
    from service.recognition.options import parse_options

    wanted = parse_options((name, value) for name, _, value in (item.partition("=") for item in options.option))
    if options.url and wanted.timeout is not None:
        raise SettingsInvalid("--option timeout is for callers who do not wait; with --url every file is waited for")
    listing = find_files(options.files)
    for told in listing.unreadable:
        print(told, file=sys.stderr)
    if not listing.files:
        print("There are no audio files.", file=sys.stderr)
        return int(bool(listing.unreadable))
    try:
        with _source(options, wanted, few=len(listing.files) <= _FEW_FILES) as source:
            failed = _recognize(options, wanted, listing, source)
            if not options.json and source.model["demonstration"]:
                print(_DEMONSTRATION, file=sys.stderr)
    except KeyboardInterrupt:
        print("Interrupted; with --out, the same command goes on from here.", file=sys.stderr, flush=True)
        sys.stdout.flush()
        os._exit(130)  # or Python would first wait for threads that wait for the model or a server
    return int(failed or bool(listing.unreadable))


def _check(options: argparse.Namespace) -> None:
    """Refuse flags that do not fit together."""
    if options.out is None:
        if options.retry_failed:
            raise SettingsInvalid("--retry-failed goes with --out")
    elif options.json:
        raise SettingsInvalid("--json goes without --out, whose rows are JSON already")
    elif options.out.suffix not in _OUT_SUFFIXES:
        raise SettingsInvalid("--out names a file that ends with .jsonl, .ndjson or .parquet")
    if options.concurrency is not None and not 1 <= options.concurrency <= _MOST_AT_ONCE:
        raise SettingsInvalid(f"--concurrency is from 1 to {_MOST_AT_ONCE}")
    if options.url and (given := ["config"] * (options.config is not None) + list(flags_of(options))):
        flags = ", ".join("--" + name.replace("_", "-") for name in given)
        raise SettingsInvalid(f"{flags}: with --url, model and limits are the server's")


def _source(options: argparse.Namespace, wanted: Options, *, few: bool) -> Source:
    if options.url:
        from service.folders.server_source import ServerSource

        return ServerSource(options.url, os.environ.get(CLIENT_KEY_VARIABLE), wanted)
    from service.folders.local_source import LocalSource

    settings = load_settings(options.config, **flags_of(options))
    return LocalSource(
        lambda: open_model(find_model(settings), settings, few=few),
        wanted,
        max_duration=settings.max_duration,
        longest_clip=settings.longest_clip,
    )


def _recognize(options: argparse.Namespace, wanted: Options, listing: Listing, source: Source) -> bool:
    threads = options.concurrency or source.at_once
    if options.out is None:
        return _print_all(listing.files, source, threads, wanted, as_json=options.json)
    from service.folders.rows import write_rows

    summary = write_rows(listing, source, wanted, options.out, threads=threads, again=options.retry_failed)
    print(
        f"{summary.done} files in {summary.seconds:.1f} s, {summary.known} known from before; "
        f"{summary.failed} of all could not be recognised",
        file=sys.stderr,
    )
    return summary.failed > 0


def _print_all(files: Sequence[Found], source: Source, threads: int, wanted: Options, *, as_json: bool) -> bool:
    """Print what is found in the files, in their order; returns whether any has a problem."""
    from service.folders.thread_pool import work_off
    from service.recognition.json_encoding import encode

    failed = False
    with closing(work_off(lambda file: source.recognize(file.path), files, threads, in_order=True)) as done:
        for file, outcome in done:
            if "problem" in outcome:
                failed = True
                print(f"{file.path}: {cast('dict[str, str]', outcome['problem'])['detail']}", file=sys.stderr)
            elif as_json:
                print(b"".join(encode({"file": str(file.path), **outcome})).decode())
            else:
                _print_result(file.path, outcome, wanted)
    return failed


def _print_result(path: Path, outcome: Outcome, wanted: Options) -> None:
    result = cast("FileResult", outcome)
    print(f"{path} ({result['audio']['duration']:.2f} s)")
    if wanted.granularity == "segment":
        from service.commands.segment_lines import segment_lines

        print(*segment_lines(cast("SegmentedResult", outcome)), sep="\n")
        return
    for channel in result.get("channels", []):
        print(f"  channel {channel['channel']}: {channel['label']} {channel['score']:.3f}")
    for row in sorted(result.get("scores", []), key=lambda row: -row["score"]):
        print(f"  {row['label']:<10} {row['score']:.3f} {'█' * round(30 * float(row['score']))}")
