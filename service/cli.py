"""The command `emotion2vec-service`: serve · recognize · stream · models."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence

from service import __version__
from service.commands import models, recognize, serve, stream
from service.errors import InvalidRequest, SetupError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # characters that a terminal does not have are escaped, as in errors
        sys.stdout.reconfigure(errors="backslashreplace")
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except (SetupError, InvalidRequest) as error:
        print(f"emotion2vec-service: {error.detail}", file=sys.stderr)
        return 2 if error.code == "settings_invalid" else 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="emotion2vec-service", description="Speech emotion recognition.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (serve, recognize, stream, models):
        command.add_parser(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
