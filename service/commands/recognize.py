"""`emotion2vec-service recognize`: recognise files in this process."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, cast

from service.commands import Commands
from service.commands.opening import MODEL_SETTINGS, find_model, open_model
from service.configure import add_flags, flags_of, load_settings
from service.errors import ServiceError

if TYPE_CHECKING:
    from service.api.schemas import FileResult, SegmentedResult

_FEW_FILES = 4
"""Up to which a short start saves more time than packed weights would."""

_DEMONSTRATION = (
    "The embedded model is for demonstration: it shows the path, not the state of the art. "
    "For real use, serve emotion2vec+ large: --model iic/emotion2vec_plus_large"
)


def add_parser(commands: Commands) -> None:
    """Add the command and its flags."""
    parser = commands.add_parser("recognize", help="recognise files in this process", allow_abbrev=False)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--json", action="store_true", help="one JSON document a line, as the service answers")
    parser.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="as in POST /recognize")
    parser.add_argument("--config", type=Path, help="a YAML file with settings")
    add_flags(parser, [*MODEL_SETTINGS, "max_duration", "max_utterance_duration"])
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Recognise the files; the status is 1 if any failed.

    Raises:
        SetupError: if the model cannot be opened, or a setting is bad.
        InvalidOptions: if an option is unknown or bad.
    """
    settings = load_settings(options.config, **flags_of(options))
    from service.api.answers import model_summary
    from service.api.encode import encode
    from service.api.options import parse_options
    from service.local import recognize_file
    from service.printed import segment_lines

    wanted = parse_options((name, value) for name, _, value in (item.partition("=") for item in options.option))
    backend = open_model(find_model(settings), settings, few=len(options.files) <= _FEW_FILES)
    failed = False
    for path in options.files:
        try:
            result = recognize_file(
                backend, path, wanted, max_duration=settings.max_duration, longest_clip=settings.longest_clip
            )
        except (ServiceError, OSError) as error:
            failed = True
            detail = error.detail if isinstance(error, ServiceError) else error.strerror
            print(f"{path}: {detail}", file=sys.stderr)
            continue
        if options.json:
            document = {"file": str(path), "model": model_summary(backend.info), **result}
            print(b"".join(encode(document)).decode())
        else:
            print(f"{path} ({result['audio']['duration']:.2f} s)")
            if wanted.granularity == "segment":
                print(*segment_lines(cast("SegmentedResult", result)), sep="\n")
            else:
                _print_result(cast("FileResult", result))
    if not options.json and backend.info.demonstration:
        print(_DEMONSTRATION, file=sys.stderr)
    return int(failed)


def _print_result(result: FileResult) -> None:
    for channel in result.get("channels", []):
        print(f"  channel {channel['channel']}: {channel['label']} {channel['score']:.3f}")
    for row in sorted(result.get("scores", []), key=lambda row: -row["score"]):
        print(f"  {row['label']:<10} {row['score']:.3f} {'█' * round(30 * float(row['score']))}")
