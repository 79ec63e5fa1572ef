"""The command `emotion2vec-service`: serve · recognize · models.

Imports stand inside the commands, so that each loads only what it needs: `serve` and `recognize` never import torch on
the CPU, and `--help` answers at once.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from service import __version__
from service.configure import add_flags, described, flags_of, load_settings, trace_settings
from service.errors import InvalidRequest, ServiceError, SettingsInvalid, SetupError
from service.logs import configure_logging
from service.settings import Settings

if TYPE_CHECKING:
    from service.api.schemas import FileResult, SegmentedResult
    from service.inference.backend import Backend
    from service.model.store import StoredModel
    from service.results import ModelInfo

_FEW_FILES = 4
"""Up to which a short start saves more time than packed weights would."""

_MODEL_SETTINGS = ("model", "backend", "device", "dtype", "threads", "cache_dir", "offline")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0 done, 1 failed, 2 wrong usage."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.command(options))
    except (SetupError, InvalidRequest) as error:
        print(f"emotion2vec-service: {error.detail}", file=sys.stderr)
        return 2 if error.code == "settings_invalid" else 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="emotion2vec-service", description="Speech emotion recognition.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    serve = commands.add_parser("serve", help="answer HTTP requests", allow_abbrev=False)
    serve.add_argument("--config", type=Path, help="a YAML file with settings")
    serve.add_argument(
        "--check", action="store_true", help="check the settings, print them and where each came from, and exit"
    )
    add_flags(serve)
    serve.set_defaults(command=_serve)

    recognize = commands.add_parser("recognize", help="recognise files in this process", allow_abbrev=False)
    recognize.add_argument("files", nargs="+", type=Path, metavar="FILE")
    recognize.add_argument("--json", action="store_true", help="one JSON document a line, as the service answers")
    recognize.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="as in POST /recognize")
    recognize.add_argument("--config", type=Path, help="a YAML file with settings")
    add_flags(recognize, [*_MODEL_SETTINGS, "max_duration", "max_utterance_duration"])
    recognize.set_defaults(command=_recognize)

    models = commands.add_parser("models", help="list, fetch and prepare models").add_subparsers(
        required=True, metavar="COMMAND"
    )
    listing = models.add_parser("list", help="the models on this machine")
    listing.add_argument("--verify", action="store_true", help="compare every file with its checksum")
    listing.set_defaults(command=_list)
    pull = models.add_parser("pull", help="fetch a model from a hub and prepare it")
    pull.add_argument("id", help="such as iic/emotion2vec_plus_large")
    pull.add_argument("--hub", choices=("modelscope", "huggingface"), help="where to fetch it from")
    pull.set_defaults(command=_pull)
    prepare = models.add_parser("prepare", help="prepare a checkpoint in hub layout")
    prepare.add_argument("directory", type=Path, help="holds config.yaml, tokens.txt and model.pt")
    prepare.add_argument("--out", type=Path, help="where to put the prepared model [the cache]")
    prepare.add_argument("--id", help="what answers call the model [the directory's name]")
    prepare.add_argument("--demonstration", action="store_true", help="let answers say that it is for demonstration")
    prepare.set_defaults(command=_prepare)
    for command in (listing, pull, prepare):
        add_flags(command, ["cache_dir"])
    return parser


def _serve(options: argparse.Namespace) -> int:
    settings, sources = trace_settings(options.config, **flags_of(options))
    if options.check:
        from service.api.keys import ApiKeys

        ApiKeys.of(settings)  # its file is part of the settings
        print(*described(settings, sources), sep="\n")
        return 0
    configure_logging(settings)
    from prometheus_client import CollectorRegistry

    from service.api.app import create_app
    from service.inference.engine import Engine
    from service.inference.limits import EngineLimits
    from service.metrics import Metrics
    from service.server import Server
    from service.tracing import exporting

    began = time.monotonic()
    stored = _find(settings)
    metrics = Metrics(CollectorRegistry())
    limits = EngineLimits(
        max_requests=settings.max_in_flight,
        max_queue_requests=settings.max_queue_requests,
        max_queue_seconds=settings.max_queue_seconds,
        stuck_after=settings.stuck_after,
    )
    engine = Engine(lambda: _open(stored, settings), limits, metrics)

    def announce(url: str) -> None:
        model = engine.model
        if model is not None:
            print(f"Ready after {time.monotonic() - began:.1f} s: {_describe(model)} at {url}", flush=True)
            print(f"Try it:\n  curl {_key_option(settings)}-F file=@{_example()} {url}/recognize", flush=True)

    with exporting(settings.traces) as tracer_provider:
        server = Server(create_app(engine, settings, metrics, tracer_provider), engine, settings, announce)
        server.run()
    if server.setup_error is not None:
        raise server.setup_error
    return 0 if server.started else 1


def _recognize(options: argparse.Namespace) -> int:
    settings = load_settings(options.config, **flags_of(options))
    from service.api.answers import model_summary
    from service.api.encode import encode
    from service.api.options import parse_options
    from service.local import recognize_file
    from service.printed import segment_lines

    wanted = parse_options((name, value) for name, _, value in (item.partition("=") for item in options.option))
    backend = _open(_find(settings), settings, few=len(options.files) <= _FEW_FILES)
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


def _list(options: argparse.Namespace) -> int:
    from service.model.store import stored_models

    settings = load_settings(**flags_of(options))
    for stored in stored_models(settings.cache_dir):
        if options.verify:
            stored.manifest.verify(stored.directory)
        note = " (embedded, for demonstration)" if stored.manifest.demonstration else ""
        print(f"{stored.manifest.id}  {stored.manifest.revision}  {stored.directory}{note}")
    return 0


def _pull(options: argparse.Namespace) -> int:
    from service.model.store import pull

    settings = load_settings(**flags_of(options))
    configure_logging(settings)
    stored = pull(options.id, cache=settings.cache_dir, source=options.hub)
    print(f"{stored.manifest.id}  {stored.manifest.revision}  {stored.directory}")
    return 0


def _prepare(options: argparse.Namespace) -> int:
    from service.model.extra import torch_extra
    from service.model.store import find

    settings = load_settings(**flags_of(options))
    configure_logging(settings)
    if options.out is None:
        if options.id or options.demonstration:
            raise SettingsInvalid("--id and --demonstration go with --out; the cache names models by their directory")
        stored = find(str(options.directory), cache=settings.cache_dir, offline=True)
        print(f"{stored.manifest.id}  {stored.manifest.revision}  {stored.directory}")
        return 0
    with torch_extra("Preparing a model"):
        from service.model.prepare import prepare
    manifest = prepare(
        options.directory,
        options.out,
        id=options.id or options.directory.resolve().name,
        demonstration=options.demonstration,
    )
    print(f"{manifest.id}  {manifest.revision}  {options.out}")
    return 0


_DEMONSTRATION = (
    "The embedded model is for demonstration: it shows the path, not the state of the art. "
    "For real use, serve emotion2vec+ large: --model iic/emotion2vec_plus_large"
)


def _find(settings: Settings) -> StoredModel:
    from service.model.store import find

    return find(settings.model, cache=settings.cache_dir, offline=settings.offline)


def _open(stored: StoredModel, settings: Settings, *, few: bool = False) -> Backend:
    from service.inference.backends.compilation import Compilation
    from service.inference.backends.select import open_backend

    return open_backend(
        stored.directory,
        stored.manifest,
        backend=settings.backend,
        device=settings.device,
        dtype=settings.dtype,
        threads=settings.threads,
        few=few,
        compilation=Compilation(
            choice=settings.compile,
            clips=settings.compile_clips,
            seconds=settings.compile_seconds,
            cache=settings.cache_dir / "compiled",
        ),
    )


def _describe(model: ModelInfo) -> str:
    text = f"{model.id} (revision {model.revision}) in {model.dtype} on {model.device} with {model.backend}"
    return f"{text}, FOR DEMONSTRATION ONLY" if model.demonstration else text


def _key_option(settings: Settings) -> str:
    """What a caller must add where keys are asked for; the key itself is not for terminals and logs."""
    return "-H 'X-API-Key: YOUR-KEY' " if settings.needs_key else ""


def _example() -> Path:
    """A bundled clip, as short a path as the shell needs."""
    clip = Path(__file__).resolve().parent / "examples" / "happy.wav"
    return clip.relative_to(Path.cwd()) if clip.is_relative_to(Path.cwd()) else clip


if __name__ == "__main__":
    sys.exit(main())
