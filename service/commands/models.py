"""`emotion2vec-service models`: list, fetch and prepare models."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from service.commands import Commands
from service.errors import SettingsInvalid
from service.settings.sources import add_flags, flags_of, load_settings

if TYPE_CHECKING:
    from service.model.manifest import Manifest


def add_parser(commands: Commands) -> None:
    """Add the command with its subcommands."""
    parser = commands.add_parser("models", help="list, fetch and prepare models")
    parser.set_defaults(run=run)
    actions = parser.add_subparsers(required=True, metavar="COMMAND")
    listing = actions.add_parser("list", help="list the models on this machine")
    listing.add_argument("--verify", action="store_true", help="compare every file with its checksum")
    listing.set_defaults(action=_list)
    pull = actions.add_parser("pull", help="fetch a model from a hub and prepare it")
    pull.add_argument("id", help="hub id, such as iic/emotion2vec_plus_large")
    pull.add_argument("--hub", choices=("modelscope", "huggingface"), help="hub to fetch it from")
    pull.set_defaults(action=_pull)
    prepare = actions.add_parser("prepare", help="prepare a checkpoint in hub layout")
    prepare.add_argument("directory", type=Path, help="directory with config.yaml, tokens.txt and model.pt")
    prepare.add_argument("--out", type=Path, help="directory for the prepared model [the cache]")
    prepare.add_argument("--id", help="id of the model in answers [the name of the directory]")
    prepare.add_argument("--demonstration", action="store_true", help="mark the model as a demonstration in answers")
    prepare.set_defaults(action=_prepare)
    for command in (listing, pull, prepare):
        add_flags(command, ["cache_dir"])


def run(options: argparse.Namespace) -> int:
    """Run the subcommand.

    Raises:
        SetupError: if a model does not exist, cannot be fetched, or is damaged.
    """
    return int(options.action(options))


def _list(options: argparse.Namespace) -> int:
    from service.model.store import stored_models

    settings = load_settings(**flags_of(options))
    for stored in stored_models(settings.cache_dir):
        if options.verify:
            stored.manifest.verify(stored.directory)
        note = " (embedded, for demonstration)" if stored.manifest.demonstration else ""
        _print_model(stored.manifest, stored.directory, note)
    return 0


def _pull(options: argparse.Namespace) -> int:
    from service.model.store import pull

    settings = load_settings(**flags_of(options))
    from service.observability.logs import configure_logging

    configure_logging(settings)
    stored = pull(options.id, cache=settings.cache_dir, source=options.hub)
    _print_model(stored.manifest, stored.directory)
    return 0


def _prepare(options: argparse.Namespace) -> int:
    from service.extras import extra
    from service.model.store import find

    settings = load_settings(**flags_of(options))
    from service.observability.logs import configure_logging

    configure_logging(settings)
    if options.out is None:
        if options.id or options.demonstration:
            raise SettingsInvalid(
                "--id and --demonstration need --out; in the cache, models are named after their directory"
            )
        stored = find(str(options.directory), cache=settings.cache_dir, offline=True)
        _print_model(stored.manifest, stored.directory)
        return 0
    with extra("torch", "Preparing a model needs"):
        from service.model.prepare import prepare
    manifest = prepare(
        options.directory,
        options.out,
        id=options.id or options.directory.resolve().name,
        demonstration=options.demonstration,
    )
    _print_model(manifest, options.out)
    return 0


def _print_model(manifest: Manifest, directory: Path, note: str = "") -> None:
    print(f"{manifest.id}  {manifest.revision}  {directory}{note}")
    if manifest.int8_error is not None:
        print(f"    INT8: {manifest.int8_error}")
